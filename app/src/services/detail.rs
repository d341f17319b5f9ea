//! The page of one service: the pipeline Source → Build → Deploy, its newest build and image, its registry and its
//! repository.

use super::api::{get_service, get_status};
use super::forms::{RegistryForm, SourceForm};
use crate::builds::{BuildDialog, commit_text, ref_text, status_badge};
use crate::error::Problem;
use crate::frame::ToSignIn;
use crate::loaded::{Page, loaded};
use crate::locales::{t, tf};
use crate::model::{BuildHead, RegistryKind, ServiceDetail, ServiceId, SystemStatus};
use crate::ui::browser::press_on_space;
use crate::ui::{CopyButton, ServerClock, badge, browser, format, icon, notice, repeat, sentence, when};
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::hooks::{use_params_map, use_query_map};
use std::time::Duration;

/// The service of the page, and how to ask for it again.
#[derive(Clone, Copy)]
pub struct Shown {
    pub detail: RwSignal<ServiceDetail>,
    /// Of the whole installation; none where it could not be asked.
    pub system: RwSignal<Option<SystemStatus>>,
    pub clock: ServerClock,
}

impl Shown {
    pub fn refresh(self) {
        let id = self.detail.with_untracked(|d| d.id.clone());
        spawn_local(async move {
            if let Ok(fresh) = get_service(id).await {
                self.clock.set(fresh.now_ms);
                self.detail.try_set(fresh);
            }
            if let Ok(system) = get_status().await {
                self.system.try_set(Some(system));
            }
        });
    }

    /// A live view knows sooner than a refresh how a build stands.
    pub fn learn(self, head: &BuildHead) {
        let news = self.detail.with_untracked(|d| match &d.last_build {
            Some(known) => known.number < head.number || (known.number == head.number && known.status != head.status),
            None => true,
        });
        if news {
            self.detail.update(|d| d.last_build = Some(head.clone()));
            if head.status.is_final() {
                self.refresh();
            }
        }
    }
}

#[component]
pub fn ServicePage() -> impl IntoView {
    let params = use_params_map();
    let id = Memo::new(move |_| params.with(|p| p.get_str("id").and_then(|id| id.parse::<ServiceId>().ok())));
    let service = Resource::from(loaded(
        Page::Waits,
        move || id.get(),
        |id| async move {
            match id {
                Some(id) => Ok((get_service(id).await?, get_status().await.ok())),
                None => Err(Problem::not_found()),
            }
        },
    ));
    view! {
        <Suspense fallback=|| view! { <div class="page"><div class="skeleton-line"></div></div> }>
            {move || Suspend::new(async move {
                match service.await {
                    Ok((detail, system)) => view! { <Detail detail=detail system=system/> }.into_any(),
                    Err(problem) if problem.code == "sign_in_needed" => view! { <ToSignIn/> }.into_any(),
                    Err(problem) => {
                        #[cfg(feature = "ssr")]
                        crate::call::page_status(&problem);
                        view! {
                            <Title text=t("not_found.title")/>
                            <div class="page">
                                {notice("failure", "warning", sentence(&problem))}
                                <a class="button" href="/services">{t("nav.services")}</a>
                            </div>
                        }
                            .into_any()
                    }
                }
            })}
        </Suspense>
    }
}

#[component]
fn Detail(detail: ServiceDetail, system: Option<SystemStatus>) -> impl IntoView {
    let clock = ServerClock::new(detail.now_ms);
    let (id, name) = (detail.id.clone(), detail.name.clone());
    let detail = RwSignal::new(detail);
    let shown = Shown { detail, system: RwSignal::new(system), clock };
    provide_context(shown);
    let query = use_query_map();
    let dialog = Memo::new(move |_| {
        query.with(|q| {
            if q.get_str("build").is_some() {
                Some("build")
            } else {
                match q.get_str("edit") {
                    Some("registry") => Some("registry"),
                    Some("source") => Some("source"),
                    _ => None,
                }
            }
        })
    });
    let busy = Memo::new(move |_| detail.with(|d| d.last_build.as_ref().is_some_and(|b| !b.status.is_final())));
    // Behind the dialog the live view brings the news.
    let watching = move || busy.get() && dialog.get().is_none();
    clock.run(Duration::from_secs(1), watching);
    repeat(Duration::from_secs(3), watching, move || {
        if !browser::page_hidden() {
            shown.refresh();
        }
    });
    Effect::new(move |_| browser::when_shown(move || shown.refresh()));
    let title = name.clone();
    let base = format!("/services/edit/{id}");
    view! {
        <Title text=title/>
        <div class="page" inert=move || dialog.get().is_some()>
            <header class="service-head">
                <h1>{name}</h1>
                {move || detail.with(|d| d.last_build.as_ref().map_or_else(registered_badge, status_badge))}
                <p class="quiet">
                    {move || detail.with(|d| without_scheme(&d.source.url))} " · "
                    {move || detail.with(|d| tf("service.default_branch", &[("branch", &d.source.default_branch)]))}
                </p>
            </header>
            <DiskNotice shown=shown/>
            <Pipeline shown=shown base=base.clone()/>
            <div class="panels">
                <LatestBuild shown=shown base=base.clone()/>
                <LatestImage shown=shown/>
                <Registry shown=shown base=base.clone()/>
                <Repository shown=shown base=base.clone()/>
            </div>
        </div>
        {move || match dialog.get() {
            Some("build") => view! { <BuildDialog shown=shown/> }.into_any(),
            Some("registry") => view! { <RegistryForm shown=shown/> }.into_any(),
            Some("source") => view! { <SourceForm shown=shown/> }.into_any(),
            _ => ().into_any(),
        }}
    }
    .into_any()
}

/// Of a service that has not been built yet.
pub fn registered_badge() -> AnyView {
    badge("neutral", "check", t("services.registered"))
}

/// Said where builds are looked at or started: while the disk is nearly full there are no new ones.
#[component]
pub fn DiskNotice(shown: Shown) -> impl IntoView {
    let low = Memo::new(move |_| shown.system.with(|s| s.clone().filter(|s| s.disk_low)));
    move || {
        low.get().map(|system| {
            let (free, needed) = (format::memory(system.free_bytes), format::memory(system.needed_bytes));
            notice("warning", "warning", tf("problem.disk_low", &[("free", &free), ("needed", &needed)]))
        })
    }
}

fn without_scheme(url: &str) -> String {
    url.split_once("://").map_or(url, |(_, rest)| rest).to_owned()
}

#[component]
fn Pipeline(shown: Shown, base: String) -> impl IntoView {
    let Shown { detail, clock, .. } = shown;
    let source = format!("{base}?edit=source");
    let open = move || {
        let tab = detail.with(|d| if d.settings.version == 0 { "settings" } else { "run" });
        format!("{base}?build={tab}")
    };
    view! {
        <ol class="pipeline" aria-label=t("service.pipeline")>
            <li>
                <a class="stage" role="button" href=source aria-labelledby="stage-source" aria-describedby="stage-source-text" on:keydown=press_on_space>
                    <span class="stage-name" id="stage-source">{t("service.source")}</span>
                    <span class="stage-text" id="stage-source-text">
                        {icon("branch")}
                        <span class="clip">{move || detail.with(|d| d.source.default_branch.clone())}</span>
                    </span>
                </a>
            </li>
            <li>
                <a class="stage stage-build" role="button" href=open aria-labelledby="stage-build" aria-describedby="stage-build-text" on:keydown=press_on_space>
                    <span class="stage-name" id="stage-build">{t("build.title")}</span>
                    <span class="stage-text" id="stage-build-text">
                        {move || {
                            detail.with(|d| match &d.last_build {
                                Some(build) => {
                                    view! {
                                        {status_badge(build)}
                                        <span class="number">"#" {build.number}</span>
                                        <span class="quiet">{build_time(build, clock.get())}</span>
                                    }
                                        .into_any()
                                }
                                None => view! { <span class="quiet">{t("services.no_build")}</span> }.into_any(),
                            })
                        }}
                    </span>
                </a>
            </li>
            <li>
                <div class="stage stage-off">
                    <span class="stage-name">{t("service.deploy")}</span>
                    <span class="stage-text quiet">{t("service.no_deployments")}</span>
                </div>
            </li>
        </ol>
    }
    .into_any()
}

/// `0:38 of about 1:12` while it runs, how long it took afterwards.
fn build_time(build: &BuildHead, now_ms: i64) -> String {
    if build.status.is_final() {
        return format::ago(build.finished_at.unwrap_or(build.queued_at), now_ms);
    }
    match (build.duration_ms(now_ms), build.expected_duration_ms) {
        (Some(ms), Some(expected)) => {
            tf("live.of_about", &[("elapsed", &format::clock(ms)), ("expected", &format::clock(expected))])
        }
        (Some(ms), None) => format::clock(ms),
        (None, _) => String::new(),
    }
}

#[component]
fn LatestBuild(shown: Shown, base: String) -> impl IntoView {
    let Shown { detail, clock, .. } = shown;
    let build = Memo::new(move |_| detail.with(|d| d.last_build.clone()));
    view! {
        <section class="panel" aria-labelledby="panel-build">
            <h2 id="panel-build">{t("service.latest_build")}</h2>
            {move || match build.get() {
                None => view! { <p class="quiet">{t("service.no_builds")}</p> }.into_any(),
                Some(build) => {
                    let took = if build.status.is_final() {
                        build.duration_ms(build.queued_at).map(format::duration)
                    } else {
                        Some(build_time(&build, clock.get())).filter(|time| !time.is_empty())
                    };
                    let number = build.number.to_string();
                    view! {
                        <dl class="facts">
                            <dt>{t("history.number")}</dt>
                            <dd class="build-line"><strong class="number">"#" {build.number}</strong> {status_badge(&build)}</dd>
                            <dt>{t("history.branch")}</dt>
                            <dd class="build-line">
                                <span class="clip">{ref_text(&build.branch).to_owned()}</span>
                                {commit_text(&build)}
                            </dd>
                            <dt>{t("history.duration")}</dt>
                            <dd class="number">{took.unwrap_or_else(|| "–".to_owned())}</dd>
                            <dt>{t("history.when")}</dt>
                            <dd>
                                {when(build.finished_at.unwrap_or(build.queued_at), clock.get())} ", "
                                {tf("service.by", &[("name", &build.created_by)])}
                            </dd>
                        </dl>
                        <a class="button" href=format!("{base}?build=run&id={}", build.id)>
                            {tf("service.open_build", &[("n", &number)])}
                        </a>
                    }
                        .into_any()
                }
            }}
        </section>
    }
    .into_any()
}

#[component]
fn LatestImage(shown: Shown) -> impl IntoView {
    let Shown { detail, clock, .. } = shown;
    let image = Memo::new(move |_| detail.with(|d| d.latest_image.clone()));
    view! {
        <section class="panel" aria-labelledby="panel-image">
            <h2 id="panel-image">{t("service.latest_image")}</h2>
            {move || match image.get() {
                None => view! { <p class="quiet">{t("service.no_image")}</p> }.into_any(),
                Some(build) => {
                    let tag = build.image_tag.clone().unwrap_or_default();
                    let digest = build.digest.clone().unwrap_or_default();
                    let took = build.duration_ms(build.queued_at).map(format::duration).unwrap_or_default();
                    let finished = build.finished_at.unwrap_or(build.queued_at);
                    view! {
                        <dl class="facts">
                            <dt>{t("result.image_tag")}</dt>
                            <dd class="with-copy">
                                <code class="clip" title=tag.clone()>{tag.clone()}</code>
                                <CopyButton label=t("result.copy_tag") text=Signal::stored(tag)/>
                            </dd>
                            <dt>{t("result.image_size")}</dt>
                            <dd title=t("result.size_hint")>{build.image_size_bytes.map_or("–".to_owned(), format::size)}</dd>
                            <dt>{t("result.digest")}</dt>
                            <dd class="with-copy">
                                <code class="clip" title=digest.clone()>{digest.clone()}</code>
                                <CopyButton label=t("result.copy_digest") text=Signal::stored(digest)/>
                            </dd>
                            <dt>{t("service.built")}</dt>
                            <dd>{when(finished, clock.get())} ", " {tf("service.took", &[("duration", &took)])}</dd>
                        </dl>
                    }
                        .into_any()
                }
            }}
        </section>
    }
    .into_any()
}

#[component]
fn Registry(shown: Shown, base: String) -> impl IntoView {
    let config = Memo::new(move |_| shown.detail.with(|d| d.registry_config.clone()));
    view! {
        <section class="panel" aria-labelledby="panel-registry">
            <h2 id="panel-registry">{t("registry.title")}</h2>
            {move || {
                let config = config.get();
                view! {
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
                }
            }}
            <a class="button" role="button" href=format!("{base}?edit=registry") on:keydown=press_on_space>{t("registry.settings")}</a>
        </section>
    }
    .into_any()
}

pub fn kind_name(kind: RegistryKind) -> String {
    t(match kind {
        RegistryKind::Harbor => "registry.harbor_name",
        RegistryKind::DockerHub => "registry.dockerhub",
        RegistryKind::Private => "registry.private",
    })
}

#[component]
fn Repository(shown: Shown, base: String) -> impl IntoView {
    let source = Memo::new(move |_| shown.detail.with(|d| d.source.clone()));
    view! {
        <section class="panel" aria-labelledby="panel-source">
            <h2 id="panel-source">{t("source.panel")}</h2>
            {move || {
                let source = source.get();
                view! {
                    <dl class="facts">
                        <dt>{t("source.url")}</dt>
                        <dd><code class="clip" title=source.url.clone()>{source.url.clone()}</code></dd>
                        <dt>{t("source.default_branch")}</dt>
                        <dd><code class="clip">{source.default_branch.clone()}</code></dd>
                        <dt>{t("source.token")}</dt>
                        <dd>{t(if source.has_token { "source.token_stored" } else { "source.token_none" })}</dd>
                    </dl>
                }
            }}
            <a class="button" role="button" href=format!("{base}?edit=source") on:keydown=press_on_space>{t("source.settings")}</a>
        </section>
    }
    .into_any()
}
