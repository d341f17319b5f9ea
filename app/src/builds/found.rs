//! Which Dockerfile Auto-detect takes, as the newest build that looked has found it. Nothing is guessed: a build that did
//! not come so far knows nothing.

use crate::model::LiveSnapshot;
use serde::{Deserialize, Serialize};

const NAME: &str = "Dockerfile";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundDockerfile {
    /// The build that looked, and on which branch.
    pub number: i64,
    pub branch: String,
    /// From the repository's root; none where there was no such file.
    pub path: Option<String>,
    /// What else could be meant, parted by commas; empty where nothing could.
    pub also: String,
}

impl FoundDockerfile {
    #[cfg_attr(not(feature = "ssr"), allow(dead_code))]
    pub fn of(snapshot: &LiveSnapshot) -> Option<Self> {
        let (head, diagnosis) = (&snapshot.build.head, &snapshot.build.diagnosis);
        let found = |path: Option<&String>, also: Option<&String>| Self {
            number: head.number,
            branch: head.branch.clone(),
            path: path.cloned(),
            also: also.cloned().unwrap_or_default(),
        };
        if let Some(note) = snapshot.view.notes.iter().rfind(|note| note.code == "dockerfile") {
            let auto = note.args.get("mode").is_some_and(|mode| mode == "auto");
            return auto.then(|| found(note.args.get("path"), note.args.get("also")));
        }
        let missing = diagnosis.as_ref()?;
        let of = |name: &str| missing.arguments.get(name);
        match missing.code.as_str() {
            "dockerfile_case" if of("path").is_some_and(|path| path == NAME) => Some(found(None, of("found"))),
            // Where a file of the name was there, the build had been told another path.
            "dockerfile_missing" if of("path").is_some_and(|path| path == NAME) => {
                let named = |also: &String| also.split(", ").any(|path| path.rsplit('/').next() == Some(NAME));
                (!of("also").is_some_and(named)).then(|| found(None, of("also")))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::*;
    use kiops_events::BuildView;
    use kiops_events::view::NoteView;
    use std::collections::BTreeMap;

    fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn snapshot(note: &[(&str, &str)], failure: Option<(&str, &[(&str, &str)])>) -> LiveSnapshot {
        let head = BuildHead {
            id: BuildId::from_random([1; 20]),
            service_id: ServiceId::from_random([2; 20]),
            number: 7,
            branch: "main".into(),
            commit: "c".repeat(40),
            commit_url: None,
            status: BuildStatus::Failure,
            attempt: 1,
            queued_at: 0,
            started_at: None,
            finished_at: None,
            cancel_requested_at: None,
            queue_position: None,
            queue_reason: None,
            image_tag: None,
            digest: None,
            image_size_bytes: None,
            profile: Profile::Auto,
            resolved_profile: None,
            profile_reason: None,
            no_cache: false,
            created_by: "admin".into(),
            expected_duration_ms: None,
            expected_start_at: None,
            failure_code: None,
        };
        let diagnosis = failure.map(|(code, pairs)| Diagnosis {
            group: String::new(),
            code: code.into(),
            arguments: args(pairs),
            confidence: 1.0,
            evidence: vec![],
            message: String::new(),
            actions: vec![],
        });
        let build =
            BuildDetail { head, steps: vec![], cached_steps: 0, log_verified: None, log_removed_at: None, diagnosis };
        let mut view = BuildView::default();
        if !note.is_empty() {
            view.notes.push(NoteView { code: "dockerfile".into(), args: args(note), row: 3 });
        }
        LiveSnapshot { now_ms: 0, agent_now_ms: None, build, view, tail: RowsPage::default() }
    }

    fn found(path: Option<&str>, also: &str) -> Option<FoundDockerfile> {
        Some(FoundDockerfile { number: 7, branch: "main".into(), path: path.map(str::to_owned), also: also.into() })
    }

    #[test]
    fn what_a_build_has_found_by_itself() {
        let of = |note: &[(&str, &str)], failure| FoundDockerfile::of(&snapshot(note, failure));
        assert_eq!(
            of(&[("mode", "auto"), ("path", "web/Dockerfile"), ("also", "Dockerfile.prod")], None),
            found(Some("web/Dockerfile"), "Dockerfile.prod")
        );
        assert_eq!(of(&[("mode", "path"), ("path", "web/Dockerfile"), ("also", "")], None), None);
        assert_eq!(of(&[], None), None);
    }

    #[test]
    fn what_was_there_instead() {
        let of = |code, pairs: &[(&str, &str)]| FoundDockerfile::of(&snapshot(&[], Some((code, pairs))));
        assert_eq!(
            of("dockerfile_case", &[("path", "Dockerfile"), ("found", "dockerfile")]),
            found(None, "dockerfile")
        );
        assert_eq!(
            of("dockerfile_missing", &[("path", "Dockerfile"), ("also", "Dockerfile.prod")]),
            found(None, "Dockerfile.prod")
        );
        assert_eq!(of("dockerfile_missing", &[("path", "Dockerfile")]), found(None, ""));
        // The path that was given, and not what Auto-detect would take.
        assert_eq!(of("dockerfile_missing", &[("path", "Dockerfile"), ("also", "web/Dockerfile")]), None);
        assert_eq!(of("dockerfile_missing", &[("path", "web/Dockerfile"), ("also", "")]), None);
        assert_eq!(of("run_failed", &[]), None);
    }
}
