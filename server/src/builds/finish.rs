//! The one place where a build ends. Whatever says that an attempt is over comes here: the agent's last word, a cancel
//! request, a sweep that found nothing left. What it means is a pure function ([`decide`]); what follows is carried out
//! so that doing it twice, or being killed in the middle, ends the same.

use super::follow::{Driver, Ending, Leave};
use super::spec::{self, LABEL_ATTEMPT, LABEL_BUILD, PUSH_BEGAN, RETRIED, WITHOUT_VOLUME};
use super::{Inner, evidence, profile};
use crate::clock::now_ms;
use crate::diagnosis::{self, End};
use crate::registry::{Image, RegistryError, Repository};
use crate::store::{BuildRow, FinishBuild, Larger};
use kiops_app::model::{BuildStatus, Diagnosis};
use kiops_events::event::{AgentEnd, AgentResult};
use kiops_events::{BuildView, Phase};
use std::collections::BTreeMap;
use std::time::Duration;

/// A registry that has just taken an image may need a moment to show it.
const ASK_TIMES: u32 = 3;
const ASK_AGAIN: Duration = Duration::from_millis(500);

pub(super) enum Settled {
    Finished,
    /// The build goes on with its next attempt.
    Again(Box<BuildRow>),
}

/// What the registry says about an image of this build and attempt.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    NotYet,
    Holds(Image),
    Absent,
    /// It does not answer: as good as absent, because another attempt pushes under another tag.
    Unknown,
}

struct Facts<'a> {
    ending: &'a Ending,
    cancel: bool,
    /// One attempt more after a fault is all there is; one with more memory is counted apart.
    retried: bool,
    push_may_have_begun: bool,
    asked: Asked,
}

impl Facts<'_> {
    /// Whether the registry may hold this attempt's image after all.
    fn may_have_pushed(&self) -> bool {
        self.push_may_have_begun && self.asked != Asked::Absent
    }
}

#[derive(Debug, PartialEq)]
enum Verdict {
    /// Only the registry knows.
    Ask,
    Success {
        digest: String,
    },
    Cancelled,
    Failure,
    Retry,
}

/// What the end of an attempt means for its build.
fn decide(facts: &Facts<'_>) -> Verdict {
    // A confirmed digest wins over everything: the image is there, whatever anybody wanted.
    if let Ending::Result(AgentResult { end: AgentEnd::Success, digest: Some(digest), .. }) = facts.ending {
        return Verdict::Success { digest: digest.clone() };
    }
    if let Asked::Holds(image) = &facts.asked {
        return Verdict::Success { digest: image.digest.clone() };
    }
    let otherwise = match facts.ending {
        _ if facts.cancel => Verdict::Cancelled,
        Ending::NeverStarted => Verdict::Cancelled,
        // The author's, the settings' or a person's business: another attempt would end the same.
        Ending::Refused { .. } => return Verdict::Failure,
        Ending::Overdue => Verdict::Failure,
        // A larger size may help, but not an image that is there already.
        Ending::Befell { situation, .. } if profile::short_of(situation.code).is_some() => Verdict::Failure,
        Ending::Befell { situation, .. } if !passes(situation.code) => return Verdict::Failure,
        Ending::Result(AgentResult { end: AgentEnd::Failure | AgentEnd::TimeLimit, .. }) => return Verdict::Failure,
        // Something around the build failed: the machine went down, the daemon died, the spool is gone.
        Ending::Vanished | Ending::Befell { .. } | Ending::Result(_) if !facts.retried => Verdict::Retry,
        Ending::Vanished | Ending::Befell { .. } | Ending::Result(_) => Verdict::Failure,
    };
    if facts.push_may_have_begun && facts.asked == Asked::NotYet { Verdict::Ask } else { otherwise }
}

/// Whether what befell an attempt may spare the next one. What the build itself caused, and what a person must change,
/// does not.
fn passes(code: &str) -> bool {
    !matches!(code, "pod_deadline" | "image_pull" | "container_config" | "waiting_for_capacity" | "cluster_quota")
}

/// Without the agent's word on it, a push may have begun as soon as BuildKit had begun: what came after the last stored
/// event is not known.
fn push_may_have_begun(ending: &Ending, view: &BuildView) -> bool {
    match ending {
        Ending::NeverStarted => false,
        // A lost daemon or an agent that was cut off knows only what it had heard before.
        Ending::Result(result) | Ending::Befell { result: Some(result), .. } => {
            result.push_began || (result.end == AgentEnd::Infrastructure && building(view))
        }
        Ending::Vanished | Ending::Overdue | Ending::Befell { .. } | Ending::Refused { .. } => building(view),
    }
}

fn building(view: &BuildView) -> bool {
    matches!(view.phase, Some(Phase::Build | Phase::Push | Phase::Buildctl))
}

pub(super) async fn settle(driver: &mut Driver, ending: Ending) -> Result<Settled, Leave> {
    // As it stands now: a cancel request may be younger than the task's own knowledge.
    let now = driver.inner.store.build(&driver.row.org_id, &driver.row.id).await?;
    if now.status.is_final() {
        return Ok(Settled::Finished);
    }
    if now.lease_epoch != driver.row.lease_epoch {
        return Err(Leave::Quietly);
    }
    let attempt = driver.row.attempt;
    let mut facts = Facts {
        ending: &ending,
        cancel: now.cancel_requested_at.is_some(),
        retried: attempt > 1 + u32::from(profile::stepped_up(&driver.row.snapshot)),
        push_may_have_begun: push_may_have_begun(&ending, &driver.progress.view),
        asked: Asked::NotYet,
    };
    let mut verdict = decide(&facts);
    if verdict == Verdict::Ask {
        facts.asked = ask(driver).await;
        verdict = decide(&facts);
    }
    tracing::info!(build = %driver.row.id, attempt, ?verdict, "an attempt is over");

    let mut notes = notes_of(driver, &ending);
    let log_verified = match &ending {
        Ending::Result(result) | Ending::Befell { result: Some(result), .. } => Some(driver.log_verified(result)),
        Ending::NeverStarted => None,
        Ending::Vanished | Ending::Overdue | Ending::Befell { .. } | Ending::Refused { .. } => Some(false),
    };
    let has_result = matches!(ending, Ending::Result(_) | Ending::Befell { result: Some(_), .. });
    if log_verified == Some(false) && has_result {
        notes.push(("log_mismatch", attempt_argument(attempt)));
    }
    if !has_result {
        let agent_now_ms = driver.agent_now_ms();
        driver.progress.view.close_open_steps(agent_now_ms);
    }
    match verdict {
        Verdict::Retry => {
            if waits_for_volume(&ending) {
                notes.push((WITHOUT_VOLUME, attempt_argument(attempt + 1)));
            }
            notes.push((RETRIED, next_arguments(attempt, &facts)));
            again(driver, notes, None).await
        }
        Verdict::Success { digest } => {
            let image_tag = spec::reference(&driver.row, &driver.progress.view);
            let image_size_bytes = match &facts.asked {
                Asked::Holds(image) => Some(image.size_bytes),
                _ => size(driver, &digest).await,
            };
            let mut args =
                BTreeMap::from([("image".to_owned(), image_tag.clone()), ("digest".to_owned(), digest.clone())]);
            args.extend(image_size_bytes.map(|bytes| ("size_bytes".to_owned(), bytes.to_string())));
            notes.push(("pushed", args));
            if facts.cancel {
                notes.push(("too_late_to_cancel", BTreeMap::new()));
            }
            let finish = FinishBuild {
                image_tag: Some(image_tag),
                digest: Some(digest),
                image_size_bytes,
                ..plain(BuildStatus::Success, log_verified)
            };
            end(driver, notes, finish).await
        }
        Verdict::Cancelled => end(driver, notes, plain(BuildStatus::Cancelled, log_verified)).await,
        // Asked above, and what was asked is never asked again.
        Verdict::Failure | Verdict::Ask => {
            let mut diagnosis = diagnose(driver, &ending).await?;
            let short = profile::short_of(&diagnosis.code);
            let (profiles, snapshot) = (&driver.inner.config.profiles, &driver.row.snapshot);
            let memory_bytes = profile::size(profiles, snapshot).memory_bytes;
            if let Some(short) = &short {
                if !facts.may_have_pushed()
                    && let Some(larger) = profile::step_up(profiles, snapshot, short)
                {
                    let mut args = next_arguments(attempt, &facts);
                    args.extend(larger.reason.arguments.clone());
                    notes.push((short.note, args));
                    let larger = Larger { snapshot: larger.within(snapshot), outgrown_bytes: memory_bytes };
                    return again(driver, notes, Some(larger)).await;
                }
                diagnosis.arguments.extend([profile::advice(profiles, snapshot)]);
            }
            let finish = FinishBuild {
                failure_code: Some(diagnosis.code.clone()),
                diagnosis: Some(diagnosis),
                outgrown_bytes: short.is_some().then_some(memory_bytes),
                ..plain(BuildStatus::Failure, log_verified)
            };
            end(driver, notes, finish).await
        }
    }
}

/// Whether the next attempt is better off without the service's volume.
fn waits_for_volume(ending: &Ending) -> bool {
    matches!(ending, Ending::Befell { situation, .. } if situation.code == "waiting_for_volume")
}

/// What the note says that an attempt after this one begins with.
fn next_arguments(attempt: u32, facts: &Facts<'_>) -> BTreeMap<String, String> {
    let mut args = attempt_argument(attempt + 1);
    args.insert(PUSH_BEGAN.to_owned(), facts.push_may_have_begun.to_string());
    args
}

async fn again(driver: &mut Driver, notes: Notes, larger: Option<Larger>) -> Result<Settled, Leave> {
    say(driver, notes).await?;
    let (id, epoch) = (&driver.row.id, driver.row.lease_epoch);
    let row = driver.inner.store.next_attempt(id, epoch, larger.as_ref()).await?;
    driver.channel.touch();
    Ok(Settled::Again(Box::new(row)))
}

/// The end of a build whose stored progress or secrets cannot be read: nothing can be followed or appended any more.
pub(super) async fn give_up(inner: &Inner, row: &BuildRow) -> bool {
    if let Err(error) = inner.runner.cancel(&row.id, row.attempt).await {
        tracing::warn!(build = %row.id, %error, "an agent could not be told to stop");
    }
    let finish = match row.cancel_requested_at {
        Some(_) => plain(BuildStatus::Cancelled, Some(false)),
        None => {
            let failure = diagnosis::Failure {
                attempt: row.attempt,
                end: End::Infrastructure,
                code: Some("unreadable".to_owned()),
                ..Default::default()
            };
            FinishBuild {
                failure_code: Some("unreadable".to_owned()),
                diagnosis: Some(diagnosis::diagnose(&failure)),
                ..plain(BuildStatus::Failure, Some(false))
            }
        }
    };
    match inner.store.finish(&row.id, row.lease_epoch, &finish).await {
        Ok(_) => {
            tracing::error!(build = %row.id, "a build is given up: what is stored of it cannot be read");
            inner.wake.notify_one();
            inner.hub.touch_all();
            true
        }
        Err(error) => {
            tracing::error!(build = %row.id, %error, "a build could not be given up");
            false
        }
    }
}

type Notes = Vec<(&'static str, BTreeMap<String, String>)>;

fn plain(status: BuildStatus, log_verified: Option<bool>) -> FinishBuild {
    FinishBuild {
        status,
        image_tag: None,
        digest: None,
        image_size_bytes: None,
        failure_code: None,
        diagnosis: None,
        log_verified,
        peak_anon_bytes: None,
        outgrown_bytes: None,
    }
}

fn attempt_argument(attempt: u32) -> BTreeMap<String, String> {
    BTreeMap::from([("attempt".to_owned(), attempt.to_string())])
}

/// What the log must say about an end that the agent did not write down itself.
fn notes_of(driver: &Driver, ending: &Ending) -> Notes {
    let attempt = attempt_argument(driver.row.attempt);
    match ending {
        Ending::Result(_) | Ending::NeverStarted => Vec::new(),
        Ending::Vanished => vec![("incomplete_from_here", attempt)],
        Ending::Befell { situation, result } => {
            let mut args = attempt.clone();
            args.extend(situation.args.clone());
            let mut notes = vec![(situation.code, args)];
            if result.is_none() && driver.progress.seq > 0 {
                notes.push(("incomplete_from_here", attempt));
            }
            notes
        }
        Ending::Overdue => vec![("did_not_stop", attempt)],
        Ending::Refused { code, detail } => {
            let mut args = attempt;
            args.insert("code".to_owned(), code.clone());
            args.insert("detail".to_owned(), detail.clone());
            vec![("not_started", args)]
        }
    }
}

/// Appends what is not said yet: whoever was killed after this and before the end says it only once.
async fn say(driver: &mut Driver, notes: Notes) -> Result<(), Leave> {
    let said = |code: &str, args: &BTreeMap<String, String>| {
        driver.progress.view.notes.iter().any(|n| n.code == code && n.args == *args)
    };
    let new: Notes = notes.into_iter().filter(|(code, args)| !said(code, args)).collect();
    driver.note(new).await
}

async fn end(driver: &mut Driver, notes: Notes, finish: FinishBuild) -> Result<Settled, Leave> {
    if finish.status != BuildStatus::Cancelled {
        driver.say_if_slow().await?;
    }
    say(driver, notes).await?;
    // None where nothing could be measured: a build that takes no memory at all is not known yet.
    let peak_anon_bytes = Some(driver.progress.view.peak_anon_bytes).filter(|bytes| *bytes > 0);
    let finish = FinishBuild { peak_anon_bytes, ..finish };
    let finished = driver.inner.store.finish(&driver.row.id, driver.row.lease_epoch, &finish).await?;
    if finished {
        tracing::info!(build = %driver.row.id, status = finish.status.as_str(), "a build is over");
    }
    // One build less runs, and all who wait move up.
    driver.inner.wake.notify_one();
    driver.inner.hub.touch_all();
    Ok(Settled::Finished)
}

fn repository(driver: &Driver) -> Repository {
    Repository::of(&driver.row.snapshot.registry, driver.secrets.registry_password.as_deref())
}

/// Whether the registry holds an image that this build and attempt pushed.
async fn ask(driver: &Driver) -> Asked {
    let tag = spec::tag(&driver.row, &driver.progress.view);
    let at = repository(driver);
    for again in (0..ASK_TIMES).rev() {
        match holds(driver, &at, &tag).await {
            Ok(Some(image)) => return Asked::Holds(image),
            Ok(None) => return Asked::Absent,
            Err(error) => tracing::warn!(build = %driver.row.id, %error, "the registry was asked for an image"),
        }
        if again > 0 {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
    Asked::Unknown
}

async fn holds(driver: &Driver, at: &Repository, tag: &str) -> Result<Option<Image>, RegistryError> {
    let registry = &driver.inner.registry;
    let Some(image) = registry.image(at, tag).await? else { return Ok(None) };
    let labels = registry.labels(at, &image).await?;
    let ours = labels.get(LABEL_BUILD).is_some_and(|b| b == driver.row.id.as_str())
        && labels.get(LABEL_ATTEMPT).is_some_and(|a| *a == driver.row.attempt.to_string());
    Ok(ours.then_some(image))
}

/// What the pushed image weighs; a build does not fail for a registry that will not say.
async fn size(driver: &Driver, digest: &str) -> Option<i64> {
    let at = repository(driver);
    for again in (0..ASK_TIMES).rev() {
        match driver.inner.registry.image(&at, digest).await {
            Ok(Some(image)) => return Some(image.size_bytes),
            Ok(None) => tracing::warn!(build = %driver.row.id, digest, "a pushed image is not found"),
            Err(error) => tracing::warn!(build = %driver.row.id, %error, "an image's size is not known"),
        }
        if again > 0 {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
    None
}

async fn diagnose(driver: &Driver, ending: &Ending) -> Result<Diagnosis, Leave> {
    let (end, code, arguments) = match ending {
        Ending::Result(result) => {
            let end = match result.end {
                AgentEnd::Failure | AgentEnd::Success => End::Failed,
                AgentEnd::TimeLimit => End::TimeLimit,
                AgentEnd::Infrastructure | AgentEnd::Terminated => End::Infrastructure,
            };
            let code = match (&result.code, result.end) {
                (Some(code), _) => Some(code.clone()),
                // It was stopped, and not by anybody's wish.
                (None, AgentEnd::Terminated) => Some("agent_lost".to_owned()),
                (None, _) => None,
            };
            (end, code, result.args.clone())
        }
        Ending::Vanished => (End::Infrastructure, Some("agent_lost".to_owned()), BTreeMap::new()),
        Ending::Befell { situation, .. } => {
            let end = match situation.code {
                "oom" | "pod_disk" => End::Failed,
                "pod_deadline" => End::TimeLimit,
                _ => End::Infrastructure,
            };
            let code = if end == End::TimeLimit { "timeout" } else { situation.code };
            (end, Some(code.to_owned()), situation.args.clone())
        }
        Ending::Overdue => (End::TimeLimit, Some("timeout".to_owned()), BTreeMap::new()),
        Ending::Refused { code, detail } => {
            let arguments = BTreeMap::from([("message".to_owned(), detail.clone())]);
            (End::Infrastructure, Some(code.clone()), arguments)
        }
        Ending::NeverStarted => (End::Failed, None, BTreeMap::new()),
    };
    let mut failure = evidence::gather(driver).await?;
    failure.end = end;
    failure.code = code;
    failure.arguments = arguments;
    if end == End::TimeLimit {
        let limit = driver.row.snapshot.settings.time_limit_s;
        failure.arguments.entry("time_limit_s".to_owned()).or_insert_with(|| limit.to_string());
    }
    let started = driver.row.started_at.unwrap_or_else(now_ms);
    tracing::debug!(build = %driver.row.id, after_ms = now_ms() - started, code = ?failure.code, "a failure is explained");
    Ok(diagnosis::diagnose(&failure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::{Grade, Situation};

    fn result(end: AgentEnd, push_began: bool) -> Ending {
        Ending::Result(AgentResult {
            end,
            exit_code: None,
            digest: (end == AgentEnd::Success).then(|| "sha256:pushed".to_owned()),
            code: None,
            args: BTreeMap::new(),
            left_out_bytes: 0,
            push_began,
            count: 0,
            hash: String::new(),
        })
    }

    fn success(digest: &str) -> Verdict {
        Verdict::Success { digest: digest.to_owned() }
    }

    fn refused() -> Ending {
        Ending::Refused { code: "agent_missing".into(), detail: String::new() }
    }

    fn out_of_memory() -> Ending {
        let situation = Situation { code: "oom", args: BTreeMap::new(), grade: Grade::Ended };
        Ending::Befell { situation, result: None }
    }

    /// Asks the registry where the rule wants it, and says what came of it.
    fn settled(ending: &Ending, cancel: bool, attempt: u32, answer: Asked) -> (bool, Verdict) {
        let view = BuildView { phase: Some(Phase::Build), ..BuildView::default() };
        let push_may_have_begun = push_may_have_begun(ending, &view);
        let mut facts = Facts { ending, cancel, retried: attempt > 1, push_may_have_begun, asked: Asked::NotYet };
        match decide(&facts) {
            Verdict::Ask => {
                facts.asked = answer;
                (true, decide(&facts))
            }
            verdict => (false, verdict),
        }
    }

    #[test]
    fn every_end_has_one_meaning() {
        use Verdict::*;
        let holds = || Asked::Holds(Image::sample("sha256:there"));
        let cases: Vec<(Ending, bool, u32, Asked, bool, Verdict)> = vec![
            // A digest wins.
            (result(AgentEnd::Success, true), false, 1, Asked::Absent, false, success("sha256:pushed")),
            (result(AgentEnd::Success, true), true, 1, Asked::Absent, false, success("sha256:pushed")),
            // A build's own failure is not tried again, and nobody is asked.
            (result(AgentEnd::Failure, false), false, 1, holds(), false, Failure),
            (result(AgentEnd::Failure, true), false, 1, holds(), false, Failure),
            (result(AgentEnd::TimeLimit, true), false, 1, holds(), false, Failure),
            // Under a cancel request everything that pushed nothing is cancelled.
            (result(AgentEnd::Terminated, false), true, 1, holds(), false, Cancelled),
            (result(AgentEnd::Terminated, true), true, 1, Asked::Absent, true, Cancelled),
            (result(AgentEnd::Terminated, true), true, 1, Asked::Unknown, true, Cancelled),
            (result(AgentEnd::Terminated, true), true, 1, holds(), true, success("sha256:there")),
            (result(AgentEnd::Infrastructure, false), true, 1, Asked::Absent, true, Cancelled),
            (result(AgentEnd::Infrastructure, false), true, 1, holds(), true, success("sha256:there")),
            (Ending::NeverStarted, true, 1, holds(), false, Cancelled),
            (Ending::NeverStarted, true, 2, holds(), false, Cancelled),
            (Ending::Overdue, true, 1, Asked::Absent, true, Cancelled),
            (refused(), true, 1, Asked::Absent, true, Cancelled),
            // Without one, a terminated process is no cancelled build.
            (result(AgentEnd::Terminated, false), false, 1, holds(), false, Retry),
            // Infrastructure: once more, unless the image is there.
            (result(AgentEnd::Infrastructure, false), false, 1, Asked::Absent, true, Retry),
            (result(AgentEnd::Infrastructure, false), false, 1, holds(), true, success("sha256:there")),
            (result(AgentEnd::Infrastructure, true), false, 1, Asked::Absent, true, Retry),
            (result(AgentEnd::Infrastructure, true), false, 1, Asked::Unknown, true, Retry),
            (result(AgentEnd::Infrastructure, true), false, 1, holds(), true, success("sha256:there")),
            (Ending::Vanished, false, 1, Asked::Absent, true, Retry),
            (Ending::Vanished, false, 1, holds(), true, success("sha256:there")),
            // And never a third time.
            (result(AgentEnd::Infrastructure, false), false, 2, Asked::Absent, true, Failure),
            (result(AgentEnd::Infrastructure, true), false, 2, holds(), true, success("sha256:there")),
            (Ending::Vanished, false, 2, Asked::Absent, true, Failure),
            // What a person must change is not tried again.
            (refused(), false, 1, holds(), false, Failure),
            (Ending::Overdue, false, 1, Asked::Absent, true, Failure),
            // Whether more memory may help is looked at where nothing else can.
            (out_of_memory(), false, 1, Asked::Absent, true, Failure),
            (out_of_memory(), false, 1, holds(), true, success("sha256:there")),
            (out_of_memory(), true, 1, Asked::Absent, true, Cancelled),
        ];
        for (ending, cancel, attempt, answer, asked, verdict) in cases {
            let case = format!("{ending:?}, cancel {cancel}, attempt {attempt}, {answer:?}");
            assert_eq!(settled(&ending, cancel, attempt, answer), (asked, verdict), "{case}");
        }
    }

    #[test]
    fn an_attempt_that_ended_early_cannot_have_pushed() {
        for (phase, may) in
            [(None, false), (Some(Phase::Checkout), false), (Some(Phase::Daemon), false), (Some(Phase::Push), true)]
        {
            let view = BuildView { phase, ..BuildView::default() };
            assert_eq!(push_may_have_begun(&Ending::Vanished, &view), may);
            assert_eq!(push_may_have_begun(&result(AgentEnd::Infrastructure, false), &view), may);
            // These ends are the agent's own doing: it knows.
            for end in [AgentEnd::Failure, AgentEnd::TimeLimit, AgentEnd::Terminated] {
                assert!(!push_may_have_begun(&result(end, false), &view));
            }
        }
    }
}
