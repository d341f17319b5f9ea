//! Which Dockerfile is built, decided before BuildKit starts.
//!
//! BuildKit would silently take `dockerfile` for `Dockerfile` and says little about a missing one; here names are exact and
//! what was found instead is said. Looks at the checked-out tree only, changes nothing in it.

use crate::record::{Ending, Recorder};
use kiops_events::event::Phase;
use kiops_events::spec::DockerfileSpec;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::path::{Component, Path, PathBuf};

const NAME: &str = "Dockerfile";
/// Folders of other people's code, where a Dockerfile is not this repository's.
const PASSED_OVER: [&str; 3] = [".git", "node_modules", "vendor"];
/// A tree is looked through up to here; nobody hides a Dockerfile deeper.
const MAX_ENTRIES: usize = 200_000;
const MAX_DEPTH: usize = 8;
/// How many others are named.
const MAX_NAMED: usize = 10;

/// What buildctl is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub context: PathBuf,
    /// The folder that the Dockerfile's name counts from.
    pub dockerfile_folder: PathBuf,
    /// Relative to that folder, with `/` between.
    pub filename: String,
}

/// Everything in a tree that may be meant by "the Dockerfile".
#[derive(Debug, Default)]
struct Candidates {
    /// Exactly the name, in the order in which they are taken: by depth, then by name.
    exact: Vec<String>,
    /// The name in another case.
    other_case: Vec<String>,
    /// `Dockerfile.prod`, `web.Dockerfile` and the like.
    similar: Vec<String>,
}

pub fn run(
    spec: &DockerfileSpec,
    commit: &str,
    tree: &Path,
    generated: &Path,
    recorder: &Recorder,
) -> Result<Plan, Ending> {
    recorder.enter(Phase::Preflight);
    let unreadable = |e: io::Error| Ending::trouble("agent", "the workspace cannot be used", &e);
    let (plan, mode, also) = match spec {
        DockerfileSpec::Auto => {
            let candidates = look(tree).map_err(unreadable)?;
            let Some(path) = candidates.exact.first().cloned() else {
                return Err(missing(NAME, commit, &candidates));
            };
            let also = [&candidates.exact[1..], &candidates.similar].concat();
            (in_tree(tree, path)?, "auto", also)
        }
        DockerfileSpec::Path { path } => {
            let Some(path) = normal(path) else { return Err(outside(path)) };
            if !tree.join(&path).is_file() {
                let mut candidates = look(tree).map_err(unreadable)?;
                candidates.other_case = other_case(tree, &path).into_iter().collect();
                return Err(missing(&path, commit, &candidates));
            }
            (in_tree(tree, path)?, "path", Vec::new())
        }
        DockerfileSpec::Inline { dockerfile, dockerignore } => {
            std::fs::create_dir_all(generated)
                .and_then(|()| std::fs::write(generated.join(NAME), dockerfile))
                .and_then(|()| std::fs::write(generated.join(format!("{NAME}.dockerignore")), dockerignore))
                .map_err(unreadable)?;
            let plan =
                Plan { context: tree.to_owned(), dockerfile_folder: generated.to_owned(), filename: NAME.to_owned() };
            (plan, "inline", Vec::new())
        }
    };
    recorder.note("dockerfile", [("path", plan.filename.clone()), ("mode", mode.to_owned()), ("also", named(&also))]);
    let ignore_files =
        [plan.dockerfile_folder.join(format!("{}.dockerignore", plan.filename)), tree.join(".dockerignore")];
    if !ignore_files.iter().any(|f| f.exists()) {
        recorder.note("dockerignore_missing", []);
    }
    Ok(plan)
}

/// The plan for a file of the tree; refused where a link leads out of it.
fn in_tree(tree: &Path, path: String) -> Result<Plan, Ending> {
    match (tree.canonicalize(), tree.join(&path).canonicalize()) {
        (Ok(root), Ok(real)) if real.starts_with(&root) => {
            Ok(Plan { context: tree.to_owned(), dockerfile_folder: tree.to_owned(), filename: path })
        }
        _ => Err(outside(&path)),
    }
}

fn outside(path: &str) -> Ending {
    Ending::failure("dockerfile_outside", [("path", path.to_owned())])
}

fn missing(path: &str, commit: &str, candidates: &Candidates) -> Ending {
    match candidates.other_case.first() {
        Some(found) => Ending::failure("dockerfile_case", [("path", path.to_owned()), ("found", found.clone())]),
        None => Ending::failure(
            "dockerfile_missing",
            [
                ("path", path.to_owned()),
                ("commit", commit.to_owned()),
                ("also", named(&[&candidates.exact[..], &candidates.similar].concat())),
            ],
        ),
    }
}

fn named(paths: &[String]) -> String {
    paths.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// The path without `.` and doubled slashes; none where it does not stay below the root.
fn normal(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Goes through the tree by depth and name, without following links to folders.
fn look(tree: &Path) -> io::Result<Candidates> {
    let mut candidates = Candidates::default();
    let mut folders = VecDeque::from([(String::new(), 0)]);
    let mut left = MAX_ENTRIES;
    while let Some((folder, depth)) = folders.pop_front() {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(tree.join(&folder))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            entries.push((name, entry.file_type()?));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, kind) in entries {
            left = left.saturating_sub(1);
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            if kind.is_dir() {
                if depth < MAX_DEPTH && left > 0 && !PASSED_OVER.contains(&name.as_str()) {
                    folders.push_back((path, depth + 1));
                }
            } else if name == NAME {
                candidates.exact.push(path);
            } else if name.eq_ignore_ascii_case(NAME) {
                candidates.other_case.push(path);
            } else if is_similar(&name) {
                candidates.similar.push(path);
            }
        }
    }
    Ok(candidates)
}

fn is_similar(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    (name.starts_with("dockerfile.") || name.starts_with("dockerfile-") || name.ends_with(".dockerfile"))
        && !name.ends_with(".dockerignore")
}

/// A file that has this path in another case.
fn other_case(tree: &Path, path: &str) -> Option<String> {
    let mut found: Vec<String> = Vec::new();
    for part in path.split('/') {
        let mut names: Vec<String> = std::fs::read_dir(tree.join(found.join("/")))
            .ok()?
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|name| name.eq_ignore_ascii_case(part))
            .collect();
        // The right name where it is there, so that only what is wrong differs.
        names.sort_by_key(|name| (name != part, name.clone()));
        found.push(names.into_iter().next()?);
    }
    let found = found.join("/");
    tree.join(&found).is_file().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Redactor;
    use crate::spool::{Reader, Writer};
    use crate::stop::Stop;
    use kiops_events::event::EventKind;
    use std::collections::BTreeMap;

    type Notes = Vec<(String, BTreeMap<String, String>)>;

    struct Case {
        folder: tempfile::TempDir,
    }

    impl Case {
        fn with(files: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for file in files {
                let path = folder.path().join("tree").join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "FROM scratch\n").unwrap();
            }
            std::fs::create_dir_all(folder.path().join("tree")).unwrap();
            Self { folder }
        }

        fn tree(&self) -> PathBuf {
            self.folder.path().join("tree")
        }

        fn run(&self, spec: DockerfileSpec) -> (Result<Plan, Ending>, Notes) {
            let spool = self.folder.path().join(format!("spool-{spec:?}").replace('/', "_"));
            let writer = Writer::open(&spool).unwrap();
            let recorder = Recorder::new(writer, 1, 1000, Redactor::new([]), Stop::default());
            let plan = run(&spec, "c0ffee", &self.tree(), &self.folder.path().join("generated"), &recorder);
            let mut reader = Reader::open(&spool).unwrap();
            let mut notes = Vec::new();
            while let Some(payload) = reader.record().unwrap() {
                let event: kiops_events::AgentEvent = serde_json::from_slice(payload).unwrap();
                if let EventKind::Note { code, args } = event.kind {
                    notes.push((code, args));
                }
            }
            (plan, notes)
        }

        fn taken(&self, spec: DockerfileSpec) -> String {
            self.run(spec).0.unwrap().filename
        }

        fn refused(&self, spec: DockerfileSpec) -> (String, BTreeMap<String, String>) {
            let ending = self.run(spec).0.unwrap_err();
            (ending.code.unwrap(), ending.args)
        }
    }

    fn path(path: &str) -> DockerfileSpec {
        DockerfileSpec::Path { path: path.into() }
    }

    #[test]
    fn auto_takes_the_root_then_depth_then_name() {
        assert_eq!(Case::with(&["Dockerfile", "a/Dockerfile"]).taken(DockerfileSpec::Auto), "Dockerfile");
        assert_eq!(Case::with(&["b/Dockerfile", "a/x/Dockerfile"]).taken(DockerfileSpec::Auto), "b/Dockerfile");
        assert_eq!(Case::with(&["b/Dockerfile", "a/Dockerfile"]).taken(DockerfileSpec::Auto), "a/Dockerfile");
        let case = Case::with(&["z/Dockerfile", "node_modules/a/Dockerfile", "vendor/Dockerfile"]);
        assert_eq!(case.taken(DockerfileSpec::Auto), "z/Dockerfile");
    }

    #[test]
    fn what_was_taken_and_what_else_is_there_is_noted() {
        let case = Case::with(&[
            "Dockerfile",
            "web/Dockerfile",
            "Dockerfile.prod",
            "api.dockerfile",
            "Dockerfile.dockerignore",
        ]);
        let (plan, notes) = case.run(DockerfileSpec::Auto);
        assert!(plan.is_ok());
        assert_eq!(notes.len(), 1);
        assert_eq!(notes[0].0, "dockerfile");
        let args: Vec<_> = notes[0].1.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            args,
            [("also", "web/Dockerfile, Dockerfile.prod, api.dockerfile"), ("mode", "auto"), ("path", "Dockerfile")]
        );
        let (_, notes) = Case::with(&["Dockerfile"]).run(DockerfileSpec::Auto);
        assert_eq!(notes[1].0, "dockerignore_missing");
    }

    #[test]
    fn a_missing_file_says_what_else_was_found() {
        let (code, args) = Case::with(&["Dockerfile.prod", "web/dockerfile.dev"]).refused(DockerfileSpec::Auto);
        assert_eq!(code, "dockerfile_missing");
        assert_eq!((args["path"].as_str(), args["commit"].as_str()), ("Dockerfile", "c0ffee"));
        assert_eq!(args["also"], "Dockerfile.prod, web/dockerfile.dev");
        let (code, args) = Case::with(&["web/Dockerfile"]).refused(path("Dockerfile"));
        assert_eq!((code.as_str(), args["also"].as_str()), ("dockerfile_missing", "web/Dockerfile"));
        let (code, args) = Case::with(&["web/Dockerfile"]).refused(path("web"));
        assert_eq!((code.as_str(), args["path"].as_str()), ("dockerfile_missing", "web"));
    }

    #[test]
    fn a_name_in_the_wrong_case_is_not_taken_but_named() {
        let (code, args) = Case::with(&["dockerfile"]).refused(DockerfileSpec::Auto);
        assert_eq!((code.as_str(), args["found"].as_str()), ("dockerfile_case", "dockerfile"));
        let (code, args) = Case::with(&["Web/DOCKERFILE"]).refused(path("web/Dockerfile"));
        assert_eq!((code.as_str(), args["found"].as_str()), ("dockerfile_case", "Web/DOCKERFILE"));
        assert_eq!(args["path"], "web/Dockerfile");
    }

    #[test]
    fn nothing_outside_the_checkout_is_read() {
        let case = Case::with(&["Dockerfile"]);
        for bad in ["../Dockerfile", "/etc/passwd", "a/../../x", "", "."] {
            assert_eq!(case.refused(path(bad)).0, "dockerfile_outside", "{bad}");
        }
        std::os::unix::fs::symlink("/etc/passwd", case.tree().join("link")).unwrap();
        assert_eq!(case.refused(path("link")).0, "dockerfile_outside");
        std::os::unix::fs::symlink("/etc", case.tree().join("folder")).unwrap();
        assert_eq!(case.refused(path("folder/passwd")).0, "dockerfile_outside");
        std::os::unix::fs::symlink("Dockerfile", case.tree().join("inside")).unwrap();
        assert_eq!(case.taken(path("inside")), "inside");
    }

    #[test]
    fn a_generated_file_lies_beside_the_checkout() {
        let case = Case::with(&["main.go"]);
        let spec = DockerfileSpec::Inline { dockerfile: "FROM scratch\n".into(), dockerignore: "*.md\n".into() };
        let (plan, notes) = case.run(spec);
        let plan = plan.unwrap();
        assert_eq!((plan.context, plan.filename.as_str()), (case.tree(), "Dockerfile"));
        assert_eq!(std::fs::read_to_string(plan.dockerfile_folder.join("Dockerfile")).unwrap(), "FROM scratch\n");
        assert!(plan.dockerfile_folder.join("Dockerfile.dockerignore").exists());
        assert_eq!(notes[0].1["mode"], "inline");
        assert_eq!(notes.len(), 1);
        assert!(!case.tree().join("Dockerfile").exists());
    }
}
