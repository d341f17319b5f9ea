use super::api::{SetPassword, SignIn, link_is_open};
use crate::loaded::{Page, loaded};
use crate::locales::t;
use crate::ui::{Field, FormError, Post, PostForm, Problems, Returned, notice};
use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::hooks::{use_params_map, use_query_map};

/// The frame of pages that come before the product.
#[component]
fn Door(#[prop(into)] title: String, children: Children) -> impl IntoView {
    view! {
        <Title text=title.clone()/>
        <main class="door">
            <div class="door-card">
                <p class="brand"><span class="mark" aria-hidden="true"></span>"KIOPS"</p>
                <h1>{title}</h1>
                {children()}
            </div>
        </main>
    }
    .into_any()
}

#[component]
pub fn SignInPage() -> impl IntoView {
    let post = Post::to::<SignIn>(|()| ());
    let returned = Returned::of("sign_in");
    let problems = Problems::new(post, &returned);
    let next = use_query_map().with_untracked(|map| map.get("next")).unwrap_or_default();
    view! {
        <Door title=t("sign_in.title")>
            <PostForm post=post>
                <input type="hidden" name="next" value=next/>
                <FormError error=problems.elsewhere(&[])/>
                <Field
                    name="user"
                    label=t("sign_in.user")
                    value=returned.value("user", "")
                    autocomplete="username"
                    required=true
                    error=Signal::stored(None)
                />
                <Field
                    name="password"
                    kind="password"
                    label=t("sign_in.password")
                    autocomplete="current-password"
                    required=true
                    error=Signal::stored(None)
                />
                <button class="button primary wide" type="submit" disabled=move || post.pending()>
                    {t("sign_in.submit")}
                </button>
            </PostForm>
        </Door>
    }
}

#[component]
pub fn SetPasswordPage() -> impl IntoView {
    let link = use_params_map().with_untracked(|map| map.get("link")).unwrap_or_default();
    let open = Resource::from(loaded(
        Page::Waits,
        {
            let link = link.clone();
            move || link.clone()
        },
        link_is_open,
    ));
    view! {
        <Door title=t("setup.title")>
            <Suspense>
                {move || {
                    let link = link.clone();
                    Suspend::new(async move {
                        match open.await {
                            Ok(true) => view! { <SetPasswordForm link=link/> }.into_any(),
                            Ok(false) => {
                                view! {
                                    {notice("failure", "warning", t("problem.link_used"))}
                                    <a class="button wide" href="/sign-in">{t("sign_in.submit")}</a>
                                }
                                    .into_any()
                            }
                            Err(problem) => notice("failure", "warning", crate::ui::sentence(&problem)),
                        }
                    })
                }}
            </Suspense>
        </Door>
    }
}

#[component]
fn SetPasswordForm(link: String) -> impl IntoView {
    let post = Post::to::<SetPassword>(|()| ());
    let problems = Problems::new(post, &Returned::of("set_password"));
    view! {
        <PostForm post=post>
            <input type="hidden" name="link" value=link/>
            // Password managers file the new password under this name.
            <input class="offscreen" type="text" name="user" value="admin" autocomplete="username" tabindex="-1" aria-hidden="true" readonly/>
            <FormError error=problems.elsewhere(&["password", "again"])/>
            <Field
                name="password"
                kind="password"
                label=t("setup.password")
                hint=t("setup.hint")
                autocomplete="new-password"
                required=true
                error=problems.at("password")
            />
            <Field
                name="again"
                kind="password"
                label=t("setup.again")
                autocomplete="new-password"
                required=true
                error=problems.at("again")
            />
            <button class="button primary wide" type="submit" disabled=move || post.pending()>
                {t("setup.submit")}
            </button>
        </PostForm>
    }
}
