//! The inputs of a registry and of a source: the same where a service is registered and where it is changed.

use super::api::{RegistryFields, check_registry, check_repository};
use crate::error::Problem;
use crate::locales::{t, tf};
use crate::model::{RegistryConfig, RegistryKind, ServiceId, SourceInput};
use crate::ui::browser::FormValues;
use crate::ui::{Field, Problems, Returned, browser, icon, radio_card, sentence};
use leptos::ev::MouseEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos::wasm_bindgen::JsCast;

pub const REGISTRY_INPUTS: &[&str] = &[
    "registry_config.url",
    "registry_config.project",
    "registry_config.namespace",
    "registry_config.path",
    "registry_config.image_name",
    "registry_config.username",
    "registry_config.password",
];

fn registry_fields(values: &FormValues) -> RegistryFields {
    RegistryFields {
        kind: values.get("kind"),
        registry_url: values.get("registry_url"),
        project: values.get("project"),
        namespace: values.get("namespace"),
        path: values.get("path"),
        image_name: values.get("image_name"),
        username: values.get("username"),
        password: values.get("password"),
        plain_http: values.get("plain_http"),
        version: String::new(),
    }
}

/// The answer of a check beside its button.
fn check_result(state: RwSignal<Option<Result<String, Problem>>>) -> impl IntoView {
    view! {
        <p class="check-result" role="status">
            {move || {
                state
                    .get()
                    .map(|result| match result {
                        Ok(text) => {
                            view! { <span class="tone-success">{icon("check")} {text}</span> }.into_any()
                        }
                        Err(problem) => {
                            view! { <span class="tone-failure">{icon("warning")} {sentence(&problem)}</span> }.into_any()
                        }
                    })
            }}
        </p>
    }
}

#[component]
pub fn RegistryInputs(
    /// What is stored, where a service exists already.
    stored: Option<RegistryConfig>,
    id: Option<ServiceId>,
    #[prop(optional)] image_name_fixed: bool,
    returned: Returned,
    problems: Problems,
) -> impl IntoView {
    let kind = stored.as_ref().map_or("harbor", |c| match c.kind {
        RegistryKind::Harbor => "harbor",
        RegistryKind::DockerHub => "dockerhub",
        RegistryKind::Private => "private",
    });
    let kind = returned.value("kind", kind);
    let has_password = stored.as_ref().is_some_and(|c| c.has_password);
    let (host, path, image, user, plain) = stored
        .map(|c| {
            let host = if c.kind == RegistryKind::DockerHub { String::new() } else { c.host };
            (host, c.path, c.image_name, c.username, c.plain_http)
        })
        .unwrap_or_default();
    let plain = !returned.value("plain_http", if plain { "true" } else { "" }).is_empty();
    let state = RwSignal::new(None);
    let busy = RwSignal::new(false);
    let test = move |event: MouseEvent| {
        let input = registry_fields(&FormValues::around(event.target())).into_input();
        let id = id.clone();
        busy.set(true);
        state.set(None);
        spawn_local(async move {
            let result = match input.validate(has_password) {
                Ok(_) => check_registry(id, input).await.map(|()| t("registry.reached")),
                Err(problem) => Err(problem),
            };
            busy.set(false);
            state.set(Some(result));
        });
    };
    let card = |value: &'static str, label: &str, hint: &str| {
        radio_card("kind", value, t(label), t(hint), kind == value, false)
    };
    view! {
        <fieldset class="group registry">
            <legend>{t("registry.title")}</legend>
            <div class="radio-cards">
                {card("harbor", "registry.harbor", "registry.harbor_hint")}
                {card("dockerhub", "registry.dockerhub", "registry.dockerhub_hint")}
                {card("private", "registry.private", "registry.private_hint")}
            </div>
            <div class="fields">
                <div class="not-dockerhub">
                    <Field
                        name="registry_url"
                        label=t("registry.url")
                        placeholder="registry.example.com"
                        value=returned.value("registry_url", &host)
                        code=true
                        error=problems.at("registry_config.url")
                    />
                </div>
                <div class="only-harbor">
                    <Field
                        name="project"
                        label=t("registry.project")
                        value=returned.value("project", &path)
                        code=true
                        error=problems.at("registry_config.project")
                    />
                </div>
                <div class="only-dockerhub">
                    <Field
                        name="namespace"
                        label=t("registry.namespace")
                        value=returned.value("namespace", &path)
                        code=true
                        error=problems.at("registry_config.namespace")
                    />
                </div>
                <div class="only-private">
                    <Field
                        name="path"
                        label=t("registry.path")
                        placeholder=t("field.optional")
                        value=returned.value("path", &path)
                        code=true
                        error=problems.at("registry_config.path")
                    />
                </div>
                <Field
                    name="image_name"
                    label=t("registry.image_name")
                    hint=if image_name_fixed { t("registry.image_name_fixed") } else { t("registry.image_name_hint") }
                    value=returned.value("image_name", &image)
                    readonly=image_name_fixed
                    code=true
                    error=problems.at("registry_config.image_name")
                />
                <Field
                    name="username"
                    label=t("registry.username")
                    value=returned.value("username", &user)
                    code=true
                    error=problems.at("registry_config.username")
                />
                <Field
                    name="password"
                    kind="password"
                    label=t("registry.password")
                    placeholder=if has_password { t("field.keep_secret") } else { String::new() }
                    autocomplete="new-password"
                    error=problems.at("registry_config.password")
                />
                <div class="only-private">
                    <label class="check">
                        <input type="checkbox" name="plain_http" value="true" checked=plain aria-describedby="plain-http-hint"/>
                        <span>{t("registry.plain_http")}</span>
                    </label>
                    <p class="hint check-hint" id="plain-http-hint">{t("registry.plain_http_hint")}</p>
                </div>
            </div>
            <div class="check-row">
                <button class="button" type="button" disabled=move || busy.get() on:click=test>
                    {move || if busy.get() { t("registry.testing") } else { t("registry.test") }}
                </button>
                {check_result(state)}
            </div>
        </fieldset>
    }
    .into_any()
}

/// Address, token and default branch of a Git repository.
#[component]
pub fn SourceInputs(
    url: String,
    default_branch: String,
    has_token: bool,
    id: Option<ServiceId>,
    returned: Returned,
    problems: Problems,
) -> impl IntoView {
    let state = RwSignal::new(None);
    let busy = RwSignal::new(false);
    let check = move |event: MouseEvent| {
        let values = FormValues::around(event.target());
        let token = values.get("token");
        let source = SourceInput::Git {
            url: values.get("url"),
            token: (!token.is_empty()).then_some(token),
            default_branch: String::new(),
            version: None,
        };
        let id = id.clone();
        busy.set(true);
        state.set(None);
        spawn_local(async move {
            let result = check_repository(id, source).await;
            busy.set(false);
            if let (Ok(check), Some(input)) = (&result, browser::by_id("default_branch")) {
                let input: web_sys::HtmlInputElement = input.unchecked_into();
                if input.value().is_empty() {
                    input.set_value(&check.default_branch);
                }
            }
            state.set(Some(result.map(|check| {
                let branches = check.branches.to_string();
                tf("source.found", &[("branch", &check.default_branch), ("n", &branches)])
            })));
        });
    };
    view! {
        <div class="fields">
            <div class="span-2">
                <Field
                    name="url"
                    kind="url"
                    label=t("source.url")
                    placeholder="https://gitlab.example.com/shop/orders.git"
                    value=returned.value("url", &url)
                    code=true
                    error=problems.at("source.url")
                />
            </div>
            <Field
                name="token"
                kind="password"
                label=t("source.token")
                hint=t("source.token_hint")
                placeholder=if has_token { t("field.keep_secret") } else { String::new() }
                autocomplete="new-password"
                error=problems.at("source.token")
            />
            <Field
                name="default_branch"
                label=t("source.default_branch")
                hint=t("source.default_branch_hint")
                value=returned.value("default_branch", &default_branch)
                code=true
                error=problems.at("source.default_branch")
            />
            {has_token
                .then(|| {
                    view! {
                        <label class="check span-2">
                            <input type="checkbox" name="forget_token" value="true"/>
                            <span>{t("source.forget_token")}</span>
                        </label>
                    }
                })}
        </div>
        <div class="check-row">
            <button class="button" type="button" disabled=move || busy.get() on:click=check>
                {move || if busy.get() { t("source.checking") } else { t("source.check") }}
            </button>
            {check_result(state)}
        </div>
    }
    .into_any()
}
