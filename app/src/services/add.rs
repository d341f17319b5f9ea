//! The dialog "Add service".

use super::api::RegisterService;
use super::fields::{REGISTRY_INPUTS, RegistryInputs, SourceInputs};
use crate::frame::Unsaved;
use crate::locales::t;
use crate::ui::{Field, FormError, PageDialog, Post, PostForm, Problems, Returned, radio_card};
use leptos::prelude::*;

#[component]
pub fn AddService() -> impl IntoView {
    let unsaved = Unsaved::of_form();
    // Registering leads on to the service's page, which is no loss.
    let post = Post::to::<RegisterService>(move |_| unsaved.set(false));
    let returned = Returned::of("register");
    let problems = Problems::new(post, &returned);
    let known: &'static [&'static str] = const {
        &[
            "name",
            "source.url",
            "source.token",
            "source.default_branch",
            REGISTRY_INPUTS[0],
            REGISTRY_INPUTS[1],
            REGISTRY_INPUTS[2],
            REGISTRY_INPUTS[3],
            REGISTRY_INPUTS[4],
            REGISTRY_INPUTS[5],
            REGISTRY_INPUTS[6],
        ]
    };
    let later = |value, key: &str| radio_card("source", value, t(key), t("source.later"), false, true);
    view! {
        <PageDialog title=t("add.title") close=Signal::stored("/services".to_owned()) class="add">
            <PostForm post=post on:input=move |_| unsaved.set(true)>
                <div class="sheet-body">
                    <div class="fields">
                        <div class="span-2">
                            <Field
                                name="name"
                                label=t("add.name")
                                hint=t("add.name_hint")
                                value=returned.value("name", "")
                                error=problems.at("name")
                            />
                        </div>
                    </div>
                    <fieldset class="group">
                        <legend>{t("source.title")}</legend>
                        <div class="radio-cards four">
                            {later("gitlab", "source.gitlab")}
                            {later("github", "source.github")}
                            {radio_card("source", "git", t("source.git"), t("source.git_hint"), true, false)}
                            {later("dockerhub_image", "source.image")}
                        </div>
                        <SourceInputs
                            url=String::new()
                            default_branch=String::new()
                            has_token=false
                            id=None
                            returned=returned.clone()
                            problems=problems
                        />
                    </fieldset>
                    <RegistryInputs stored=None id=None returned=returned problems=problems/>
                </div>
                <footer class="sheet-foot">
                    <FormError error=problems.elsewhere(known)/>
                    <a class="button" href="/services">{t("dialog.cancel")}</a>
                    <button class="button primary" type="submit" disabled=move || post.pending()>
                        {t("add.register")}
                    </button>
                </footer>
            </PostForm>
        </PageDialog>
    }
    .into_any()
}
