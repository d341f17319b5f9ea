//! The stories of builds on this machine, and those that only it can tell.

mod builds_rig;
mod stories;

use async_trait::async_trait;
use builds_rig::*;
use kiops_app::backend::Builds as _;
use kiops_app::model::*;
use kiops_server::disk::Disk;
use kiops_server::runner::local::LocalRunner;
use kiops_server::runner::{RelayIo, RunState, Runner, RunnerError, StartSpec};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stories::build::HELLO;
use stories::{Place, Victim};
use tokio_util::sync::CancellationToken;

struct Here;

impl Place for Here {
    async fn wishes(&self, _: &Data, wishes: Wishes) -> Wishes {
        wishes
    }

    async fn process(&self, world: &World, id: &BuildId, victim: Victim) -> i32 {
        match victim {
            Victim::Agent => world.agent_pid(id, 1),
            Victim::Daemon => world.data.daemon_pid().unwrap(),
        }
    }
}

stories::tell_in!(Here, std::future::ready(()));

/// A disk of its own for the database: what becomes full is only that.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn new(path: std::path::PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let disk = Self(path);
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "small"]).then_some(disk)
    }

    fn mount(&self, arguments: &[&str]) -> bool {
        std::process::Command::new("mount").args(arguments).arg(&self.0).status().is_ok_and(|s| s.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l"]).arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_database_whose_disk_fills_up_in_mid_build_goes_on_when_there_is_room() {
    let data = Arc::new(Data::new());
    let disk = SmallDisk::new(data.path.join("database"), "8m");
    assert!(disk.is_some() || !rustix::process::geteuid().is_root(), "root may mount");
    // Only root may make a disk of its own; an ordinary user's run proves the rest.
    let Some(disk) = disk else { return };
    let wishes = Wishes { database: Some(disk.0.join("kiops.db")), ..Wishes::default() };
    let world = World::open(data.clone(), wishes).await;
    // More than fits, and nothing that becomes small.
    let service = world
        .service_of("FROM alpine:3\nRUN dd if=/dev/urandom bs=1M count=24 2>/dev/null | base64; echo the end\n")
        .await;
    let id = world.start(&service).await;
    let since = std::time::Instant::now();
    loop {
        let free = rustix::fs::statvfs(&disk.0).map(|s| s.f_bavail * s.f_frsize).unwrap();
        if free < 1 << 20 {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "{free} bytes are free:\n{}", world.agent_logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    // It is still answered, and nothing has been decided.
    let row = world.row(&id).await;
    assert!(!row.status.is_final() && row.cancel_requested_at.is_none(), "{row:#?}");
    assert!(world.builds.rows(&world.caller, &id, 0, 10).await.unwrap().total > 0);
    assert!(disk.mount(&["-o", "remount,size=200m"]));
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.log_verified), (BuildStatus::Success, 1, Some(true)));
    let next = world.start(&world.service_of(HELLO).await).await;
    assert_eq!(world.over(&next).await.status, BuildStatus::Success);
    drop(world.close().await);
}

#[tokio::test]
async fn a_build_that_was_queued_waits_for_room_on_the_disk_and_says_so() {
    let data = Arc::new(Data::new());
    let (path, links) = (data.path.clone(), tempfile::tempdir().unwrap());
    // What the disk is asked for: a folder that has room, or one that never has any.
    let looked_at = links.path().join("data");
    let leads_to = |place: &Path| {
        let _ = std::fs::remove_file(&looked_at);
        std::os::unix::fs::symlink(place, &looked_at).unwrap();
    };
    leads_to(&path);
    let disk = Arc::new(Disk::new(&looked_at, 1));
    // A watch looks before it ends.
    let look = async || {
        let over = CancellationToken::new();
        over.cancel();
        disk.watch(over).await;
    };
    let world = World::asleep(data, Wishes { disk: Some(disk.clone()), ..Wishes::default() }).await;
    let id = world.start(&world.service_of(HELLO).await).await;

    leads_to(Path::new("/proc"));
    look().await;
    assert!(disk.is_low());
    world.builds.spawn();
    // Asked once more, and not only when it began.
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.builds.queue_changed();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let head = world.detail(&id).await.head;
    assert_eq!((head.status, head.queue_reason.as_deref()), (BuildStatus::Queued, Some("disk")));

    // Nobody tells the queue.
    leads_to(&path);
    look().await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 1), "{}", world.log(&id).await);
}

#[tokio::test]
async fn a_line_of_ten_megabytes_is_kept_whole() {
    const BYTES: usize = 10 << 20;
    let world = World::new().await;
    // `~` by its number: then it stands nowhere else in the log.
    let dockerfile = format!("FROM alpine:3\nRUN head -c {BYTES} /dev/zero | tr '\\000' '\\176'\n");
    let id = world.start(&world.service_of(&dockerfile).await).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt, row.log_verified), (BuildStatus::Success, 1, Some(true)));
    // What a download gives.
    assert_eq!(world.log(&id).await.matches('~').count(), BYTES);
}

/// The runner of this machine with profiles of little memory: running out of it costs nobody else any.
struct Scaled(LocalRunner);

/// Small has 64 MiB then, and medium 128.
const SCALE: u64 = 32;

#[async_trait]
impl Runner for Scaled {
    async fn start(&self, mut start: StartSpec) -> Result<(), RunnerError> {
        if let Some(cgroup) = &mut start.spec.limits.cgroup {
            cgroup.memory_bytes /= SCALE;
        }
        self.0.start(start).await
    }

    async fn connect(&self, build: &BuildId, attempt: u32) -> Result<Box<dyn RelayIo>, RunnerError> {
        self.0.connect(build, attempt).await
    }

    async fn cancel(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError> {
        self.0.cancel(build, attempt).await
    }

    async fn state(&self, build: &BuildId, attempt: u32) -> Result<RunState, RunnerError> {
        self.0.state(build, attempt).await
    }

    async fn release(&self, build: &BuildId, attempt: u32) -> Result<(), RunnerError> {
        self.0.release(build, attempt).await
    }

    async fn list(&self) -> Result<Vec<(BuildId, u32)>, RunnerError> {
        self.0.list().await
    }
}

#[tokio::test]
async fn a_build_that_runs_out_of_memory_gets_more_where_nobody_chose_its_size() {
    let data = Arc::new(Data::new());
    let runner = Arc::new(Scaled(local_runner(&data.path, hosts().await)));
    let world = World::open(data, Wishes { runner: Some(runner), ..Wishes::default() }).await;
    // Long enough to be measured.
    let repo = world.hosts.repo("FROM alpine:3\nRUN sleep 1\n").await;
    let service = world.service(&repo).await;
    let frugal = world.start(&service).await;
    assert_eq!(world.over(&frugal).await.status, BuildStatus::Success, "{}", world.log(&frugal).await);
    if world.notes(&frugal).await.iter().any(|note| note == "limits_unavailable") {
        assert!(!rustix::process::geteuid().is_root(), "root may write limits");
        println!("limits cannot be written here");
        return;
    }
    let profile = async |id: &BuildId| {
        let head = world.detail(id).await.head;
        (head.resolved_profile.unwrap_or(head.profile), head.profile_reason.unwrap().code)
    };
    assert_eq!(profile(&frugal).await, (Profile::Medium, "no_history".to_owned()));

    // What was measured of the first makes the second one small; `tail` keeps more than that, and less than the next size,
    // until it is seen.
    let hungry = "FROM alpine:3\nRUN (head -c 80m /dev/zero; sleep 3) | tail -c 80m >/dev/null\n";
    repo.commit("main", &[("Dockerfile", hungry.as_bytes())], "Hungry").await.unwrap();
    let grown = world.start(&service).await;
    let row = world.over(&grown).await;
    let log = world.log(&grown).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 2), "{log}\n{}", world.agent_logs());
    assert!(log.contains("--- profile_measured builds=1 "), "{log}");
    assert!(log.contains("--- profile_larger attempt=2 from=small profile=medium push_began=false\n"), "{log}");
    assert_eq!(profile(&grown).await, (Profile::Medium, "larger".to_owned()));
    // Nothing was pushed before: the tag is the plain one.
    assert!(row.image_tag.unwrap().ends_with(&format!("main-2-{}", &row.commit[..7])));
    let peak = world.store.appetite(&service).await.unwrap().successes[0].peak_anon_bytes.unwrap();
    assert!(((80 << 20)..=(128 << 20)).contains(&peak), "{peak}");

    // Small is not tried again, and who chooses it all the same is told of the next one.
    let after = world.start(&service).await;
    assert_eq!(world.over(&after).await.attempt, 1);
    assert_eq!(profile(&after).await, (Profile::Medium, "after_oom".to_owned()));
    let settings = BuildSettings { profile: Profile::Small, no_cache: true, ..BuildSettings::default() };
    world.store.save_settings(&world.caller.org_id, &service, &settings, None).await.unwrap();
    let chosen = world.start(&service).await;
    let row = world.over(&chosen).await;
    assert_eq!((row.attempt, row.failure_code.as_deref()), (1, Some("oom")), "{}", world.log(&chosen).await);
    assert_eq!(row.diagnosis.unwrap().arguments["larger"], "medium");
}
