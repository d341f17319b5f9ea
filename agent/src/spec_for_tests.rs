//! A specification with everything in its plainest form, for the tests of this crate's modules.

use kiops_events::spec::*;
use std::collections::BTreeMap;

pub fn spec() -> AgentSpec {
    AgentSpec {
        version: kiops_events::wire::VERSION,
        build: "b1".into(),
        attempt: 1,
        source: SourceSpec {
            url: "https://git.example/p/hello.git".into(),
            commit: "0123456789abcdef0123456789abcdef01234567".into(),
            reference: "refs/heads/main".into(),
            submodules: true,
            addresses: Default::default(),
        },
        dockerfile: DockerfileSpec::Auto,
        image: ImageSpec {
            references: vec!["registry.example/p/hello:main-1-abc".into()],
            plain_http: false,
            platform: None,
        },
        cache: CacheSpec { reference: None, no_cache: false, mount_namespace: "svc-1".into() },
        buildkit: BuildkitSpec {
            buildkitd: "/b/buildkitd".into(),
            buildctl: "/b/buildctl".into(),
            run_dir: "/r".into(),
            state_dir: "/s".into(),
            no_process_sandbox: false,
            in_user_namespace: false,
            state_goes: false,
            dockerhub_mirrors: vec![],
            insecure_registries: vec![],
        },
        limits: LimitsSpec { time_limit_s: 60, log_cap_bytes: 1 << 28, hold_s: 1, cgroup: None },
        files: FilesSpec {
            workspace: "/w".into(),
            spool: "/d/spool".into(),
            socket: Some("/d/relay.sock".into()),
            key: "/d/key".into(),
            git_credential: None,
            docker_config: "/d/docker".into(),
            redact: vec![],
        },
        labels: BTreeMap::new(),
    }
}
