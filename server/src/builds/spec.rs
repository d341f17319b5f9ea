//! From a build's row to what its agent is given. Pure, but for the secrets, which are handed in.

use super::{BuildsConfig, profile};
use crate::registry::docker_config;
use crate::runner::StartSpec;
use crate::store::BuildRow;
use kiops_app::model::{DockerfileChoice, RegistryConfig, RegistryKind, image_tag};
use kiops_events::BuildView;
use kiops_events::spec::*;
use kiops_events::view::NoteView;
use kiops_events::wire::VERSION;
use std::collections::BTreeMap;

/// Whose image it is, in the image's own config.
pub const LABEL_BUILD: &str = "io.kiops.build";
pub const LABEL_ATTEMPT: &str = "io.kiops.attempt";
/// Git hosts take an access token as the password of any user; this name is the one that GitLab's manual gives.
const TOKEN_USER: &str = "oauth2";
/// Where a service's registry cache lies: beside its image, so that the same login may write it.
const CACHE_NAME: &str = "buildcache";
/// The notes that a further attempt begins with: after a fault, and with more memory. One of their arguments says whether
/// the attempt before may have pushed.
pub const RETRIED: &str = "retried";
pub const LARGER: &str = "profile_larger";
/// … because the disk was too small.
pub const LARGER_DISK: &str = "profile_larger_disk";
/// … without the volume that did not come.
pub const WITHOUT_VOLUME: &str = "without_volume";
pub const PUSH_BEGAN: &str = "push_began";

/// The values that a build is started with and that stand in no row.
#[derive(Clone, Default)]
pub struct Secrets {
    pub relay_key: Vec<u8>,
    pub git_token: Option<String>,
    pub registry_password: Option<String>,
}

impl Secrets {
    /// Every form in which the server itself hands them out.
    pub fn texts(&self, row: &BuildRow) -> Vec<String> {
        let mut out: Vec<String> = self.git_token.iter().chain(&self.registry_password).cloned().collect();
        if let Some(token) = &self.git_token {
            out.push(super::redact::basic(TOKEN_USER, token));
        }
        if let Some(password) = &self.registry_password {
            out.push(super::redact::basic(&row.snapshot.registry.username, password));
        }
        out
    }
}

/// The tag of this attempt's image.
pub fn tag(row: &BuildRow, view: &BuildView) -> String {
    // Of the notes that began this attempt and those before it: who was killed between such a note and its attempt settles
    // the one before.
    let has_begun =
        |n: &NoteView| n.args.get("attempt").and_then(|a| a.parse().ok()).is_some_and(|a: u32| a <= row.attempt);
    let pushed_before = view.notes.iter().any(|n| {
        [RETRIED, LARGER, LARGER_DISK].contains(&n.code.as_str())
            && has_begun(n)
            && n.args.get(PUSH_BEGAN).is_some_and(|began| began == "true")
    });
    image_tag(&row.branch, row.number, &row.commit, pushed_before.then_some(row.attempt))
}

pub fn reference(row: &BuildRow, view: &BuildView) -> String {
    row.snapshot.registry.reference(&tag(row, view))
}

pub fn start_spec(row: &BuildRow, view: &BuildView, secrets: &Secrets, config: &BuildsConfig) -> StartSpec {
    let snapshot = &row.snapshot;
    let size = profile::size(&config.profiles, snapshot);
    let cgroup = CgroupSpec {
        parent: format!("kiops/{}", row.service_id),
        cpu_millicores: size.cpu_millicores,
        memory_bytes: size.memory_bytes,
    };
    let labels = [
        (LABEL_BUILD, row.id.to_string()),
        (LABEL_ATTEMPT, row.attempt.to_string()),
        ("org.opencontainers.image.revision", row.commit.clone()),
        ("org.opencontainers.image.source", snapshot.git_url.clone()),
    ];
    let spec = AgentSpec {
        version: VERSION,
        build: row.id.to_string(),
        attempt: row.attempt,
        source: SourceSpec {
            url: snapshot.git_url.clone(),
            commit: row.commit.clone(),
            reference: full_reference(&row.branch),
            submodules: true,
            addresses: Default::default(),
        },
        dockerfile: match &snapshot.settings.dockerfile {
            DockerfileChoice::Auto => DockerfileSpec::Auto,
            DockerfileChoice::Path { path } => DockerfileSpec::Path { path: path.clone() },
        },
        image: ImageSpec {
            references: vec![reference(row, view)],
            plain_http: snapshot.registry.plain_http,
            platform: None,
        },
        cache: CacheSpec {
            reference: Some(cache_reference(&snapshot.registry)),
            no_cache: snapshot.settings.no_cache,
            mount_namespace: format!("{}-{}", row.service_id, snapshot.cache_generation),
        },
        // The runner alone knows its paths, and what its agents may reach.
        buildkit: Default::default(),
        limits: LimitsSpec {
            time_limit_s: snapshot.settings.time_limit_s,
            log_cap_bytes: config.log_cap_bytes,
            hold_s: u32::try_from(config.hold.as_secs()).unwrap_or(u32::MAX),
            cgroup: Some(cgroup),
        },
        files: Default::default(),
        labels: BTreeMap::from(labels.map(|(name, value)| (name.to_owned(), value))),
    };
    StartSpec {
        spec,
        service: row.service_id.clone(),
        size,
        keeps_state: !view.notes.iter().any(|note| note.code == WITHOUT_VOLUME),
        relay_key: secrets.relay_key.clone(),
        git_credential: secrets.git_token.clone().map(|token| (TOKEN_USER.to_owned(), token)),
        docker_config: docker_config(&snapshot.registry, secrets.registry_password.as_deref()),
        redact: secrets.texts(row),
    }
}

/// BuildKit uploads image and cache at the same time. Within one repository both write the same layer's link, and the
/// registry that most others are made of may read it half written when it checks the image's manifest: so the cache has
/// a repository of its own. Docker Hub has no room for a third part, and would open a new repository to everybody: there
/// the cache is a tag.
fn cache_reference(registry: &RegistryConfig) -> String {
    match registry.kind {
        RegistryKind::DockerHub => registry.reference(CACHE_NAME),
        RegistryKind::Harbor | RegistryKind::Private => format!("{}/{CACHE_NAME}:latest", registry.repository()),
    }
}

/// As Git names it: a build is started with a branch's short name or a tag's full one.
fn full_reference(branch: &str) -> String {
    if branch.starts_with("refs/") { branch.to_owned() } else { format!("refs/heads/{branch}") }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use kiops_app::model::{BuildId, BuildSettings, BuildStatus, ID_LETTERS, OrgId, Profile, SecretId, ServiceId};
    use kiops_events::EventKind;

    pub fn row(branch: &str, attempt: u32) -> BuildRow {
        BuildRow {
            id: BuildId::from_random([1; ID_LETTERS]),
            org_id: OrgId::from_random([1; ID_LETTERS]),
            service_id: ServiceId::from_random([1; ID_LETTERS]),
            number: 7,
            branch: branch.into(),
            commit: "0d4f1c2aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".into(),
            status: BuildStatus::Starting,
            attempt,
            queued_at: 0,
            started_at: Some(0),
            finished_at: None,
            cancel_requested_at: None,
            lease_epoch: 1,
            image_tag: None,
            digest: None,
            image_size_bytes: None,
            created_by_name: "admin".into(),
            failure_code: None,
            diagnosis: None,
            log_verified: None,
            log_removed_at: None,
            snapshot: crate::store::BuildSnapshot {
                git_url: "https://git.example.com/a/b".into(),
                git_secret: Some(SecretId::from_random([1; ID_LETTERS])),
                registry: RegistryConfig {
                    kind: RegistryKind::Private,
                    host: "r.example:5000".into(),
                    path: "shop".into(),
                    image_name: "orders".into(),
                    username: "robot".into(),
                    has_password: true,
                    plain_http: true,
                    version: 1,
                },
                registry_secret: None,
                settings: BuildSettings { no_cache: true, ..BuildSettings::default() },
                cache_generation: 3,
                resolved_profile: Profile::Small,
                profile_reason: None,
            },
        }
    }

    fn secrets() -> Secrets {
        Secrets {
            relay_key: vec![1],
            git_token: Some("git-token".into()),
            registry_password: Some("registry-password".into()),
        }
    }

    #[test]
    fn an_agent_gets_what_the_row_says_and_no_secret_in_its_specification() {
        let config = BuildsConfig { log_cap_bytes: 99, ..BuildsConfig::new("test") };
        let start = start_spec(&row("main", 1), &BuildView::default(), &secrets(), &config);
        let spec = &start.spec;
        assert_eq!(spec.image.references, ["r.example:5000/shop/orders:main-7-0d4f1c2"]);
        assert_eq!(spec.source.reference, "refs/heads/main");
        assert_eq!(spec.cache.reference.as_deref(), Some("r.example:5000/shop/orders/buildcache:latest"));
        let hub = RegistryConfig { kind: RegistryKind::DockerHub, ..row("main", 1).snapshot.registry };
        assert_eq!(cache_reference(&hub), "r.example:5000/shop/orders:buildcache");
        assert_eq!(spec.cache.mount_namespace, format!("{}-3", row("main", 1).service_id));
        assert!(spec.cache.no_cache && spec.image.plain_http);
        assert_eq!((spec.limits.time_limit_s, spec.limits.log_cap_bytes, spec.limits.hold_s), (3600, 99, 600));
        assert_eq!(spec.limits.cgroup.as_ref().map(|c| c.cpu_millicores), Some(1000));
        assert_eq!(
            (spec.labels[LABEL_BUILD].as_str(), spec.labels[LABEL_ATTEMPT].as_str()),
            (spec.build.as_str(), "1")
        );
        let text = serde_json::to_string(spec).unwrap();
        assert!(!text.contains("git-token") && !text.contains("registry-password"));
        assert_eq!(start.git_credential, Some(("oauth2".into(), "git-token".into())));
        for known in ["git-token", "registry-password", "cm9ib3Q6cmVnaXN0cnktcGFzc3dvcmQ="] {
            assert!(start.redact.iter().any(|r| r == known), "{known}");
        }
        assert_eq!(
            start_spec(&row("refs/tags/v1", 1), &BuildView::default(), &secrets(), &config).spec.source.reference,
            "refs/tags/v1"
        );
        // Once a volume has not come, the build goes on without it.
        let mut given_up = BuildView::default();
        given_up.apply(1, 1, 0, &EventKind::Note { code: WITHOUT_VOLUME.into(), args: BTreeMap::new() });
        let again = start_spec(&row("main", 2), &given_up, &secrets(), &config);
        assert!(start.keeps_state && !again.keeps_state);
    }

    #[test]
    fn a_tag_says_when_an_earlier_attempt_may_have_pushed() {
        let begun = |view: &mut BuildView, code: &str, attempt: u32, began: &str| {
            let args = [(PUSH_BEGAN, began.to_owned()), ("attempt", attempt.to_string())];
            let args = args.map(|(k, v)| (k.to_owned(), v)).into();
            view.apply(view.pos + 1, attempt - 1, 0, &EventKind::Note { code: code.into(), args });
        };
        let retried = |began: &str| {
            let mut view = BuildView::default();
            begun(&mut view, RETRIED, 2, began);
            view
        };
        assert_eq!(tag(&row("main", 1), &BuildView::default()), "main-7-0d4f1c2");
        assert_eq!(tag(&row("main", 2), &retried("false")), "main-7-0d4f1c2");
        assert_eq!(tag(&row("main", 2), &retried("true")), "main-7-0d4f1c2-r2");
        // Killed between the note and the attempt that it announces.
        assert_eq!(tag(&row("main", 1), &retried("true")), "main-7-0d4f1c2");
        // What an attempt may have pushed stays in the way of all that follow.
        let mut thrice = retried("true");
        begun(&mut thrice, LARGER, 3, "false");
        assert_eq!(tag(&row("main", 3), &thrice), "main-7-0d4f1c2-r3");
        let mut larger = retried("false");
        begun(&mut larger, LARGER, 3, "true");
        assert_eq!(tag(&row("main", 2), &larger), "main-7-0d4f1c2");
        assert_eq!(tag(&row("main", 3), &larger), "main-7-0d4f1c2-r3");
    }
}
