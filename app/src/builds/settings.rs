//! Settings: where the Dockerfile is, how large and how fresh the build, and where its image goes.

use super::api::{SaveSettings, detected_dockerfile};
use super::found::FoundDockerfile;
use super::ref_text;
use crate::frame::Unsaved;
use crate::loaded::{Page, loaded};
use crate::locales::{t, tf};
use crate::model::{BuildSettings, DockerfileChoice, Profile, ServiceId};
use crate::services::{Shown, kind_name};
use crate::ui::{Field, FormError, Post, PostForm, Problems, Returned, Switch, badge, browser, format, icon, notice};
use leptos::prelude::*;
use leptos_router::hooks::use_query_map;

#[component]
pub fn SettingsTab(shown: Shown) -> impl IntoView {
    let unsaved = Unsaved::of_form();
    let saved = RwSignal::new(use_query_map().with_untracked(|q| q.get_str("saved").is_some()));
    // A counter of fresh starts: the form is written anew from what is stored.
    let fresh = RwSignal::new(0u32);
    // The version that the form's values belong to; in a form that was given back an older one than the page's.
    let written_from = StoredValue::new(0);
    // Before the page's program runs only a link can load anything.
    let runs = RwSignal::new(false);
    Effect::new(move |_| runs.set(true));
    let post = Post::to::<SaveSettings>(move |settings| {
        unsaved.set(false);
        saved.set(true);
        set_version(settings.version);
        written_from.set_value(settings.version);
        shown.detail.update(|d| d.settings = settings);
    });
    Effect::new(move |_| {
        if matches!(post.said(), Some(Err(_))) {
            saved.set(false);
        }
    });
    let returned = Returned::of("settings");
    let problems = Problems::new(post, &returned);
    let edited = move |_| {
        saved.set(false);
        unsaved.set(true);
    };
    let start_over = move |_| {
        unsaved.set(false);
        post.forget();
        fresh.update(|n| *n += 1);
    };
    let load_newer = move |_| {
        shown.refresh();
        // The refreshed settings are what the new form is written from.
        let before = written_from.get_value();
        let once = StoredValue::new(true);
        Effect::new(move |_| {
            if shown.detail.with(|d| d.settings.version) != before && once.get_value() {
                once.set_value(false);
                start_over(());
            }
        });
    };
    let code = problems.code();
    let page = shown.detail.with_untracked(|d| format!("/services/edit/{}?build=settings", d.id));
    view! {
        <PostForm post=post attr:class="settings-form" on:input=edited>
            <div class="sheet-body">
                {move || {
                    fresh.track();
                    let detail = shown.detail.get_untracked();
                    let settings = detail.settings;
                    let returned = if fresh.get_untracked() == 0 { returned.clone() } else { Returned::default() };
                    // Old values go with the version that they were typed for: they must not win over newer ones.
                    let version = returned.value("version", &settings.version.to_string());
                    written_from.set_value(version.parse().unwrap_or(settings.version));
                    view! {
                        <input type="hidden" name="id" value=detail.id.to_string()/>
                        <input type="hidden" name="version" id="settings-version" value=version/>
                        <input type="hidden" name="time_limit_s" value=settings.time_limit_s.to_string()/>
                        <DockerfileGroup
                            service=detail.id
                            settings=settings.clone()
                            returned=returned.clone()
                            problems=problems
                        />
                        <RegistryGroup shown=shown/>
                        <OptionsGroup shown=shown settings=settings returned=returned/>
                    }
                }}
            </div>
            <footer class="sheet-foot">
                <p class="saved" role="status">
                    {move || saved.get().then(|| view! { <span class="badge tone-success">{icon("check")} {t("settings.saved")}</span> })}
                </p>
                <FormError error=problems.elsewhere(&["settings.dockerfile.path"])/>
                {move || {
                    let label = t("settings.load_newer");
                    match (code.get().as_deref() == Some("settings_conflict"), runs.get()) {
                        (false, _) => ().into_any(),
                        (true, false) => view! { <a class="button" role="button" href=page.clone()>{label}</a> }.into_any(),
                        (true, true) => {
                            view! { <button class="button" type="button" on:click=load_newer>{label}</button> }.into_any()
                        }
                    }
                }}
                <span class="spacer"></span>
                <button class="button" type="button" disabled=move || !unsaved.get() on:click=move |_| start_over(())>
                    {t("settings.discard")}
                </button>
                <button class="button primary" type="submit" disabled=move || post.pending()>{t("dialog.save")}</button>
            </footer>
        </PostForm>
    }
    .into_any()
}

/// The next save builds on this one.
fn set_version(version: i64) {
    if let Some(input) = browser::by_id("settings-version") {
        let _ = input.set_attribute("value", &version.to_string());
    }
}

#[component]
fn DockerfileGroup(
    service: ServiceId,
    settings: BuildSettings,
    returned: Returned,
    problems: Problems,
) -> impl IntoView {
    let (mode, path) = match &settings.dockerfile {
        DockerfileChoice::Auto => ("auto", String::new()),
        DockerfileChoice::Path { path } => ("path", format!("./{path}")),
    };
    let mode = returned.value("mode", mode);
    let card = |value: &'static str, label: &str, hint: &str, off: bool| {
        crate::ui::radio_card("mode", value, t(label), t(hint), mode == value, off)
    };
    view! {
        <fieldset class="row-group dockerfile">
            <legend>{t("settings.dockerfile")}</legend>
            <p class="row-hint">{t("settings.dockerfile_hint")}</p>
            <div class="row-body">
                <div class="radio-cards">
                    {card("auto", "settings.auto", "settings.auto_hint", false)}
                    {card("path", "settings.path", "settings.path_hint", false)}
                    {card("wizard", "settings.wizard", "settings.wizard_later", true)}
                </div>
                <div class="only-auto">
                    <Found service=service/>
                </div>
                <div class="only-path half">
                    <Field
                        name="path"
                        label=t("settings.dockerfile_path")
                        placeholder="./Dockerfile"
                        hint=t("settings.path_rule")
                        value=returned.value("path", &path)
                        code=true
                        error=problems.at("settings.dockerfile.path")
                    />
                </div>
            </div>
        </fieldset>
    }
    .into_any()
}

/// What Auto-detect has found, or its rule while no build has looked.
#[component]
fn Found(service: ServiceId) -> impl IntoView {
    let found = Resource::from(loaded(Page::GoesAhead, move || service.clone(), detected_dockerfile));
    let rule = || view! { <p class="hint">{t("settings.auto_rule")}</p> }.into_any();
    view! {
        <Suspense fallback=rule>
            {move || Suspend::new(async move {
                match found.await {
                    Ok(Some(found)) => found_text(found),
                    _ => rule(),
                }
            })}
        </Suspense>
    }
}

fn found_text(found: FoundDockerfile) -> AnyView {
    let number = found.number.to_string();
    let seen = [("n", number.as_str()), ("branch", ref_text(&found.branch))];
    let also = (!found.also.is_empty()).then(|| {
        let key = if found.path.is_some() { "settings.found_also" } else { "settings.found_instead" };
        view! { <span>{t(key)} " " <code>{found.also.clone()}</code> " " {t("settings.use_path")}</span> }
    });
    let what = match &found.path {
        Some(path) => {
            view! { {badge("success", "check", t("settings.found"))} <code>"./" {path.clone()}</code> <span>{tf("settings.found_in", &seen)}</span> }
                .into_any()
        }
        None => {
            view! { {badge("warning", "warning", t("settings.found_none"))} <span>{tf("settings.found_none_in", &seen)}</span> }
                .into_any()
        }
    };
    view! { <p class="found">{what} {also}</p> }.into_any()
}

#[component]
fn RegistryGroup(shown: Shown) -> impl IntoView {
    let (config, base) =
        shown.detail.with_untracked(|d| (d.registry_config.clone(), format!("/services/edit/{}", d.id)));
    view! {
        <section class="row-group" aria-labelledby="settings-registry">
            <h3 class="row-title" id="settings-registry">{t("registry.title")}</h3>
            <p class="row-hint">{t("settings.registry_hint")}</p>
            <div class="row-body">
                <dl class="facts">
                    <dt>{t("registry.kind")}</dt>
                    <dd>{kind_name(config.kind)}</dd>
                    <dt>{t("registry.push_to")}</dt>
                    <dd><code class="clip" title=config.repository()>{config.repository()}</code></dd>
                    <dt>{t("registry.user")}</dt>
                    <dd>
                        {if config.username.is_empty() {
                            view! { <span class="quiet">{t("registry.anonymous")}</span> }.into_any()
                        } else {
                            view! { <code class="clip">{config.username.clone()}</code> }.into_any()
                        }}
                    </dd>
                </dl>
                {(!config.is_complete()).then(|| notice("warning", "warning", t("registry.incomplete")))}
                <a class="link" href=format!("{base}?edit=registry")>{t("registry.settings")}</a>
            </div>
        </section>
    }
    .into_any()
}

/// `auto` and the sizes with what they mean here.
pub fn profile_text(shown: Shown, profile: Profile) -> String {
    let size = shown.system.with_untracked(|system| match system {
        Some(system) => system.profiles.size(profile),
        None => profile.default_size(),
    });
    match size {
        None => format!("auto · {}", t("settings.auto_profile")),
        Some(size) => tf(
            "settings.profile_size",
            &[
                ("name", profile.as_str()),
                ("cpu", &format::cores(size.cpu_millicores)),
                ("memory", &format::memory(size.memory_bytes)),
            ],
        ),
    }
}

#[component]
fn OptionsGroup(shown: Shown, settings: BuildSettings, returned: Returned) -> impl IntoView {
    let chosen = returned.value("profile", settings.profile.as_str());
    let holds = shown.system.with_untracked(|system| system.as_ref().is_none_or(|s| s.limits_hold));
    let unlimited = (!holds).then(|| t("settings.profile_no_limits"));
    let no_cache = !returned.value("no_cache", if settings.no_cache { "true" } else { "" }).is_empty();
    view! {
        <section class="row-group" aria-labelledby="settings-options">
            <h3 class="row-title" id="settings-options">{t("settings.options")}</h3>
            <p class="row-hint">{t("settings.options_hint")}</p>
            <div class="row-body options">
                <div class="field">
                    <label for="profile">{t("settings.profile")}</label>
                    <select id="profile" name="profile" aria-describedby="profile-hint">
                        {Profile::ALL
                            .into_iter()
                            .map(|profile| {
                                view! {
                                    <option value=profile.as_str() selected=chosen == profile.as_str()>
                                        {profile_text(shown, profile)}
                                    </option>
                                }
                            })
                            .collect_view()}
                    </select>
                    <p class="hint" id="profile-hint">{t("settings.profile_hint")} {unlimited}</p>
                </div>
                <Switch name="no_cache" label=t("settings.no_cache") hint=t("settings.no_cache_hint") checked=no_cache/>
                {(settings.version == 0).then(|| notice("neutral", "info", t("settings.first_build")))}
            </div>
        </section>
    }
    .into_any()
}
