//! Registry Settings and Git settings of a service.

use super::api::{SaveRegistry, SaveSource};
use super::detail::Shown;
use super::fields::{REGISTRY_INPUTS, RegistryInputs, SourceInputs};
use crate::frame::Unsaved;
use crate::locales::t;
use crate::ui::{FormError, LoadNewer, PageDialog, Post, PostForm, Problems, Returned};
use leptos::prelude::*;
use leptos_router::NavigateOptions;
use leptos_router::hooks::use_navigate;

/// What a save that has worked does: it closes the dialog.
fn saved(shown: Shown, unsaved: RwSignal<bool>) -> impl Fn() + Send + Sync {
    let navigate = use_navigate();
    move || {
        unsaved.set(false);
        shown.refresh();
        let id = shown.detail.with_untracked(|d| d.id.clone());
        navigate(&format!("/services/edit/{id}"), NavigateOptions::default());
    }
}

#[component]
pub fn RegistryForm(shown: Shown) -> impl IntoView {
    let unsaved = Unsaved::of_form();
    let saved = saved(shown, unsaved);
    let post = Post::to::<SaveRegistry>(move |_| saved());
    let returned = Returned::of("registry");
    let problems = Problems::new(post, &returned);
    let detail = shown.detail.get_untracked();
    let close = format!("/services/edit/{}", detail.id);
    let version = detail.registry_config.version.to_string();
    view! {
        <PageDialog title=t("registry.settings") subtitle=detail.name close=Signal::stored(close.clone()) class="edit">
            <PostForm post=post on:input=move |_| unsaved.set(true)>
                <div class="sheet-body">
                    <input type="hidden" name="id" value=detail.id.to_string()/>
                    <input type="hidden" name="version" value=returned.value("version", &version)/>
                    <RegistryInputs
                        stored=Some(detail.registry_config)
                        id=Some(detail.id)
                        image_name_fixed=detail.image_name_fixed
                        returned=returned
                        problems=problems
                    />
                </div>
                <footer class="sheet-foot">
                    <FormError error=problems.elsewhere(REGISTRY_INPUTS)/>
                    <LoadNewer problems=problems page=format!("{close}?edit=registry")/>
                    <a class="button" href=close>{t("dialog.cancel")}</a>
                    <button class="button primary" type="submit" disabled=move || post.pending()>{t("dialog.save")}</button>
                </footer>
            </PostForm>
        </PageDialog>
    }
    .into_any()
}

#[component]
pub fn SourceForm(shown: Shown) -> impl IntoView {
    let unsaved = Unsaved::of_form();
    let saved = saved(shown, unsaved);
    let post = Post::to::<SaveSource>(move |_| saved());
    let returned = Returned::of("source");
    let problems = Problems::new(post, &returned);
    let detail = shown.detail.get_untracked();
    let close = format!("/services/edit/{}", detail.id);
    let version = detail.source.version.to_string();
    view! {
        <PageDialog title=t("source.settings") subtitle=detail.name close=Signal::stored(close.clone()) class="edit">
            <PostForm post=post on:input=move |_| unsaved.set(true)>
                <div class="sheet-body">
                    <input type="hidden" name="id" value=detail.id.to_string()/>
                    <input type="hidden" name="version" value=returned.value("version", &version)/>
                    <SourceInputs
                        url=detail.source.url
                        default_branch=detail.source.default_branch
                        has_token=detail.source.has_token
                        id=Some(detail.id)
                        returned=returned
                        problems=problems
                    />
                </div>
                <footer class="sheet-foot">
                    <FormError error=problems.elsewhere(&["source.url", "source.token", "source.default_branch"])/>
                    <LoadNewer problems=problems page=format!("{close}?edit=source")/>
                    <a class="button" href=close>{t("dialog.cancel")}</a>
                    <button class="button primary" type="submit" disabled=move || post.pending()>{t("dialog.save")}</button>
                </footer>
            </PostForm>
        </PageDialog>
    }
    .into_any()
}
