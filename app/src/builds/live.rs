//! One build, live or finished: its state, its steps, its log, its result.

use super::api::{CancelBuild, get_snapshot};
use super::log::{Log, LogPanel};
use super::result::{FailureBox, ResultBox};
use super::start::AtHand;
use super::status_badge;
use super::steps::Steps;
use super::stream::{Line, Lost, follow};
use crate::error::{Problem, ProblemStatus};
use crate::frame::{ConnectionLost, ToSignIn};
use crate::loaded::{Loaded, Page, loaded};
use crate::locales::{t, tf};
use crate::model::{BuildDetail, BuildHead, BuildId, BuildStatus, LiveMessage, LiveSnapshot, ServiceId};
use crate::services::Shown;
use crate::ui::{FormError, Post, PostForm, Problems, Returned, ServerClock, browser, format, icon, notice, sentence};
use kiops_events::view::NoteView;
use kiops_events::{BuildView, Marker};
use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::hooks::{use_location, use_query_map};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the page knows of a build; kept up to date by the stream.
#[derive(Clone, Copy)]
pub struct Live {
    pub build: RwSignal<BuildDetail>,
    pub view: RwSignal<BuildView>,
    pub clock: ServerClock,
    /// The agent's clock less the server's, while the agent runs.
    agent: RwSignal<Option<i64>>,
    pub log: Log,
    region: NodeRef<leptos::html::Section>,
}

impl Live {
    fn new(snapshot: LiveSnapshot, row: Option<u64>) -> Self {
        let id = snapshot.build.head.id.clone();
        Self {
            region: NodeRef::new(),
            clock: ServerClock::new(snapshot.now_ms),
            agent: RwSignal::new(snapshot.agent_now_ms.map(|agent| agent - snapshot.now_ms)),
            build: RwSignal::new(snapshot.build),
            view: RwSignal::new(snapshot.view),
            log: Log::new(id, snapshot.tail, row),
        }
    }

    fn take(self, message: LiveMessage) {
        match message {
            LiveMessage::Snapshot(snapshot) => {
                let snapshot = *snapshot;
                self.clock.set(snapshot.now_ms);
                self.agent.set(snapshot.agent_now_ms.map(|agent| agent - snapshot.now_ms));
                if self.build.with_untracked(|build| *build != snapshot.build) {
                    self.build.set(snapshot.build);
                }
                let rows = snapshot.view.rows;
                self.view.set(snapshot.view);
                self.log.extend(Some(snapshot.tail), rows);
            }
            LiveMessage::Patch(patch) => {
                let patch = *patch;
                self.clock.set(patch.now_ms);
                if patch.agent_now_ms.is_some() {
                    self.agent.set(patch.agent_now_ms.map(|agent| agent - patch.now_ms));
                }
                if let Some(build) = patch.build {
                    self.build.set(build);
                }
                self.view.update(|view| view.apply_patch(patch.view));
                let rows = self.view.with_untracked(|view| view.rows);
                self.log.extend(patch.tail, rows);
            }
        }
    }

    pub fn running(self) -> bool {
        self.build.with(|build| !build.head.status.is_final())
    }

    /// The agent's clock now, on the axis of the steps.
    pub fn agent_now(self) -> i64 {
        match self.agent.get() {
            Some(offset) if self.running() => (self.clock.get() + offset).max(0),
            _ => self
                .view
                .with(|view| view.steps.iter().flat_map(|s| &s.intervals).map(|i| i.end_ms).max().unwrap_or_default()),
        }
    }
}

/// The row that tells most of a build: why it failed.
pub fn telling_row(snapshot: &LiveSnapshot) -> Option<u64> {
    let LiveSnapshot { build, view, .. } = snapshot;
    let evidence = build.diagnosis.as_ref().and_then(|d| d.evidence.first()).map(|e| e.row);
    let told = build.head.status == BuildStatus::Failure && build.rows_stand();
    evidence.or(view.first_error_row).filter(|_| told)
}

type Snapshot = Loaded<Result<LiveSnapshot, Problem>>;

/// What one page is written from. A server draws a page's parts more than once, and a running build goes on meanwhile: all
/// that is drawn, and what the browser takes over, must be of one moment.
#[derive(Clone, Default)]
pub struct OneMoment(Arc<Mutex<Option<(BuildId, Snapshot)>>>);

fn snapshot_of(id: BuildId, row: Option<u64>) -> Snapshot {
    let ask = |id: BuildId| loaded(Page::Waits, move || id.clone(), move |id| get_snapshot(id, row));
    let Some(OneMoment(moment)) = use_context() else { return ask(id) };
    let mut moment = moment.lock().unwrap_or_else(|e| e.into_inner());
    match &*moment {
        Some((known, snapshot)) if *known == id => snapshot.clone(),
        _ => moment.insert((id.clone(), ask(id))).1.clone(),
    }
}

#[component]
pub fn LiveView(id: BuildId, shown: Shown) -> impl IntoView {
    let row = wanted_row();
    if let Some(snapshot) = AtHand::take(&id) {
        return view! { <LiveBuild snapshot=snapshot row=row shown=shown first=First::Head/> }.into_any();
    }
    let snapshot = snapshot_of(id, row);
    let service = shown.detail.with_untracked(|d| d.id.clone());
    view! {
        <Suspense fallback=|| view! { <div class="live skeleton-live" aria-hidden="true"></div> }>
            {move || {
                let (service, snapshot) = (service.clone(), snapshot.clone());
                Suspend::new(async move {
                    match snapshot.await {
                        // Another service's build is not to be found here.
                        Ok(snapshot) if snapshot.build.head.service_id != service => {
                            missing(&Problem::not_found(), &service)
                        }
                        Ok(snapshot) => {
                            view! { <LiveBuild snapshot=snapshot row=row shown=shown first=First::All/> }.into_any()
                        }
                        Err(problem) => missing(&problem, &service),
                    }
                })
            }}
        </Suspense>
    }
    .into_any()
}

/// There is no such build, or it cannot be shown now.
pub fn missing(problem: &Problem, service: &ServiceId) -> AnyView {
    #[cfg(feature = "ssr")]
    crate::call::page_status(problem);
    if problem.status != ProblemStatus::NotFound {
        return view! { <div class="live-notice">{notice("failure", "warning", sentence(problem))}</div> }.into_any();
    }
    gone(service)
}

fn gone(service: &ServiceId) -> AnyView {
    view! {
        <div class="live-notice">
            {notice("warning", "warning", t("live.gone"))}
            <a class="button small" href=format!("/services/edit/{service}?build=history")>{t("build.history")}</a>
        </div>
    }
    .into_any()
}

/// The row that the address asks for with `&row=13`, counted from 1 as they are shown. What stands behind a `#` is not
/// sent to the server: it is looked at once the page's program runs.
fn wanted_row() -> Option<u64> {
    use_query_map().with_untracked(|q| q.get_str("row").and_then(row_of))
}

fn row_of(number: &str) -> Option<u64> {
    number.parse::<u64>().ok()?.checked_sub(1)
}

/// Follows the addresses that lead to other rows of the same build: they move the log, not the page.
fn follow_address(log: Log) {
    let query = use_query_map();
    Effect::new(move |before: Option<Option<String>>| {
        let now = query.with(|q| q.get("row"));
        if let Some(before) = before
            && before != now
            && let Some(row) = now.as_deref().and_then(row_of)
        {
            log.lead_to(row);
        }
        now
    });
    let hash = use_location().hash;
    Effect::new(move |_| {
        let row = hash.with(|hash| hash.trim_start_matches('#').strip_prefix("row-").and_then(row_of));
        if let Some(row) = row {
            log.lead_to(row);
        }
    });
}

/// Opens the stream of a build that is not over, once it is `wanted`. Gives back why it ended, if it had to.
fn watch(live: Live, shown: Shown, wanted: impl Fn() -> bool + 'static) -> RwSignal<Option<Lost>> {
    let ended = RwSignal::new(None);
    let head = live.build.with_untracked(|build| build.head.clone());
    if head.status.is_final() {
        return ended;
    }
    let lost = use_context::<ConnectionLost>();
    let set_lost = move |down: bool| {
        if let Some(ConnectionLost(lost)) = lost
            && lost.try_get_untracked() != Some(down)
        {
            lost.try_set(down);
        }
    };
    follow(
        head.id,
        wanted,
        move || live.view.try_with_untracked(|view| view.pos).unwrap_or_default(),
        move |message| {
            if live.view.is_disposed() {
                return;
            }
            live.take(message);
            let head = live.build.with_untracked(|build| build.head.clone());
            shown.learn(&head);
        },
        move |line| {
            set_lost(line == Line::Down);
            if let Line::Lost(why) = line {
                ended.try_set(Some(why));
            }
        },
    );
    on_cleanup(move || set_lost(false));
    ended
}

/// Why a page hears nothing of its build any more, and what to do.
fn lost_notice(why: Lost, service: &ServiceId) -> AnyView {
    match why {
        Lost::SignedOut => view! { <ToSignIn/> }.into_any(),
        Lost::Gone => gone(service),
        Lost::Outdated => view! {
            <div class="live-notice">
                {notice("warning", "warning", t("live.outdated"))}
                <button type="button" class="button small" on:click=|_| browser::reload()>{t("live.reload")}</button>
            </div>
        }
        .into_any(),
    }
}

/// What is drawn first: of a build that has just been asked for nothing is of interest but that it is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    All,
    Head,
}

#[component]
fn LiveBuild(snapshot: LiveSnapshot, row: Option<u64>, shown: Shown, first: First) -> impl IntoView {
    let head = snapshot.build.head.clone();
    // A failure opens where it failed.
    let start = row.or_else(|| telling_row(&snapshot));
    let live = Live::new(snapshot, start);
    let base = format!("/services/edit/{}?build=run&id={}", head.service_id, head.id);
    let here = base.clone();
    let whole = RwSignal::new(first == First::All);
    let lost = watch(live, shown, move || whole.get());
    live.clock.run(Duration::from_millis(200), move || live.running());
    follow_address(live.log);

    let final_status = Memo::new(move |_| live.build.with(|b| b.head.status).is_final());
    let notes = Memo::new(move |_| live.view.with(|v| v.notes.clone()));
    let first_error = Memo::new(move |_| live.view.with(|v| v.first_error_row));
    let service = head.service_id;
    if first == First::Head {
        browser::after_paint(move || {
            whole.try_set(true);
        });
    }
    view! {
        <section
            class="live"
            tabindex="-1"
            node_ref=live.region
            aria-label=tf("live.label", &[("n", &head.number.to_string())])
        >
            <PageTitle live=live shown=shown/>
            <div role="status">{move || lost.get().map(|why| lost_notice(why, &service))}</div>
            {move || {
                if final_status.get() {
                    view! { <Ended live=live base=base.clone()/> }.into_any()
                } else {
                    view! {
                        <Header live=live/>
                        <div class="live-notice" role="status">{important_notes(live)}</div>
                    }
                        .into_any()
                }
            }}
            <div class="live-body">
                {move || {
                    let here = here.clone();
                    whole
                        .get()
                        .then(|| {
                            view! {
                                <Steps live=live/>
                                <LogPanel log=live.log here=here notes=notes.into() first_error=first_error.into()/>
                            }
                        })
                }}
            </div>
            {move || whole.get().then(|| view! { <Progress live=live/> })}
        </section>
    }
    .into_any()
}

/// The tab's title tells the state while one works elsewhere.
#[component]
fn PageTitle(live: Live, shown: Shown) -> impl IntoView {
    let name = shown.detail.with_untracked(|d| d.name.clone());
    let text = move || {
        live.build.with(|b| {
            let state = t(match b.head.status {
                BuildStatus::Success => "status.success",
                BuildStatus::Failure => "status.failure",
                BuildStatus::Cancelled => "status.cancelled",
                BuildStatus::Queued => "status.queued",
                _ => "status.in_progress",
            });
            format!("#{} {state} · {name}", b.head.number)
        })
    };
    view! { <Title text=text/> }
}

/// Branch and commit of a build, the commit as a link where its page is known.
pub fn what(head: &BuildHead) -> AnyView {
    let commit = head.short_commit().to_owned();
    view! {
        <span class="what">
            <strong>"#" {head.number}</strong>
            " "
            <span class="clip">{super::ref_text(&head.branch).to_owned()}</span>
            " "
            {match head.commit_url.clone() {
                Some(url) => {
                    view! { <a class="commit" href=url target="_blank" rel="noopener external"><code>{commit}</code></a> }
                        .into_any()
                }
                None => view! { <code class="commit">{commit}</code> }.into_any(),
            }}
        </span>
    }
    .into_any()
}

#[component]
fn Header(live: Live) -> impl IntoView {
    let post = Post::to::<CancelBuild>(|()| ());
    let problems = Problems::new(post, &Returned::of("cancel"));
    let head = Memo::new(move |_| live.build.with(|b| b.head.clone()));
    let elapsed = move || head.with(|h| h.duration_ms(live.clock.get()));
    let share = move || {
        let expected = head.with(|h| h.expected_duration_ms)?;
        // Never full before it is.
        elapsed().map(|ms| (ms as f64 / expected.max(1) as f64).min(0.97))
    };
    let asked = Memo::new(move |_| head.with(BuildHead::cancelling) || post.pending());
    keep_focus(live);
    let (id, service) = head.with_untracked(|h| (h.id.to_string(), h.service_id.to_string()));
    view! {
        <div class="live-head">
            {move || head.with(status_badge)}
            {move || head.with(what)}
            <span class="live-phase quiet">{move || head.with(phase_text)}</span>
            <div
                class="progress"
                class:unknown=move || share().is_none()
                style=move || format!("--share:{}%", (share().unwrap_or_default() * 1000.0).round() / 10.0)
            >
                <i></i>
            </div>
            <span class="live-time">{move || head.with(|head| time_text(head, live.clock.get()))}</span>
            <PostForm post=post>
                <input type="hidden" name="id" value=id/>
                <input type="hidden" name="service" value=service/>
                // Not `disabled`, which would take the focus away: it stays with the build.
                <button
                    type="submit"
                    class="button danger small"
                    class:off=move || asked.get()
                    aria-disabled=move || asked.get().to_string()
                    on:click=move |event| {
                        if asked.get_untracked() {
                            event.prevent_default();
                        }
                    }
                >
                    {move || if asked.get() { t("status.cancelling") } else { t("live.cancel") }}
                </button>
            </PostForm>
            <FormError error=problems.elsewhere(&[])/>
        </div>
    }
    .into_any()
}

/// Who stands on the header's button when the build ends finds the button gone: the focus goes to what has come instead.
fn keep_focus(live: Live) {
    on_cleanup(move || {
        let inside = browser::browser()
            .and_then(|window| window.document()?.active_element()?.closest(".live-head").ok()?)
            .is_some();
        if inside {
            request_animation_frame(move || {
                if let Some(Some(region)) = live.region.try_get_untracked() {
                    let _ = region.focus();
                }
            });
        }
    });
}

/// How long it has taken, of how long it usually takes; of a waiting one, when it may begin.
fn time_text(head: &BuildHead, now_ms: i64) -> Option<String> {
    if let Some(at) = head.expected_start_at {
        return (at > now_ms).then(|| tf("live.starts_in", &[("time", &format::clock(at - now_ms + 999))]));
    }
    let now = format::clock(head.duration_ms(now_ms)?);
    Some(match head.expected_duration_ms {
        Some(expected) => tf("live.of_about", &[("elapsed", &now), ("expected", &format::clock(expected))]),
        None => now,
    })
}

/// What it does now, or why it waits.
fn phase_text(head: &BuildHead) -> String {
    match head.status {
        BuildStatus::Queued => match head.queue_reason.as_deref() {
            Some(reason) => {
                let key = format!("queue.{reason}");
                if crate::locales::has(&key) { t(&key) } else { reason.to_owned() }
            }
            None => String::new(),
        },
        BuildStatus::Starting => t("phase.starting"),
        BuildStatus::CheckingOut => t("phase.checkout"),
        BuildStatus::Building => t("phase.building"),
        BuildStatus::Pushing => t("phase.push"),
        _ => String::new(),
    }
}

#[component]
fn Ended(live: Live, base: String) -> impl IntoView {
    let build = live.build.get_untracked();
    match build.head.status {
        BuildStatus::Failure => view! { <FailureBox live=live base=base/> }.into_any(),
        _ => view! { <ResultBox live=live/> }.into_any(),
    }
}

/// What a screen reader hears while the build runs: not each line, but how it stands, now and then.
#[component]
fn Progress(live: Live) -> impl IntoView {
    let said = RwSignal::new(String::new());
    let text = Memo::new(move |_| {
        let status = live.build.with(|b| b.head.status);
        match status {
            BuildStatus::Success => t("live.say_success"),
            BuildStatus::Cancelled => t("live.say_cancelled"),
            BuildStatus::Queued => t("status.queued"),
            _ => live.view.with(|view| {
                let total = (view.steps.len() + view.announced.len()).to_string();
                if let Some(failed) = view.failed_step().filter(|_| status == BuildStatus::Failure) {
                    tf("live.say_failed_at", &[("n", &failed.number.to_string()), ("total", &total)])
                } else if status == BuildStatus::Failure {
                    t("live.say_failed")
                } else {
                    match view.steps.iter().rfind(|s| s.marker == Marker::Running) {
                        Some(step) => tf("live.say_step", &[("n", &step.number.to_string()), ("total", &total)]),
                        None => t("status.in_progress"),
                    }
                }
            }),
        }
    });
    let waiting = StoredValue::new(false);
    Effect::new(move |before: Option<()>| {
        let now = text.get();
        let ended = live.build.with(|b| b.head.status.is_final());
        if before.is_none() {
            return;
        }
        if ended {
            said.set(now);
        } else if !waiting.get_value() {
            waiting.set_value(true);
            set_timeout(
                move || {
                    if waiting.try_set_value(false).is_none() {
                        said.set(text.get_untracked());
                    }
                },
                Duration::from_secs(5),
            );
        }
    });
    view! { <p class="offscreen" role="status">{move || said.get()}</p> }
}

/// Something that is worth a line above the log: it was retried, it is slow, it could not be cancelled any more.
pub fn important_notes(live: Live) -> AnyView {
    const WAITS: [&str; 12] = [
        "cluster_away",
        "cluster_login",
        "cluster_rights",
        "relay_away",
        "cluster_quota",
        "waiting_for_capacity",
        "waiting_for_volume",
        "image_pull",
        "container_config",
        "pod_starting",
        "pod_sandbox",
        "pod_volume",
    ];
    const SHOWN: [&str; 9] = [
        "retried",
        "profile_larger",
        "profile_larger_disk",
        "without_volume",
        "much_slower",
        "much_slower_largest",
        "too_late_to_cancel",
        "log_capped",
        "buildkit_state_wiped",
    ];
    let notes = Memo::new(move |_| {
        live.view.with(|view| {
            let counts = |note: &&NoteView| {
                let code = note.code.as_str();
                // What is waited for, as long as nothing else has come.
                let last = note.row.checked_add(1) == Some(view.rows);
                SHOWN.contains(&code) || (live.running() && last && WAITS.contains(&code))
            };
            view.notes.iter().filter(counts).cloned().collect::<Vec<_>>()
        })
    });
    let line = |note: NoteView| {
        view! {
            <p class="notice tone-neutral">
                {icon("info")}
                <span>{super::log::note_sentence(&note.code, &note.args)}</span>
            </p>
        }
    };
    view! { {move || notes.get().into_iter().map(line).collect_view()} }.into_any()
}
