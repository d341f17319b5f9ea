//! The store's story, the same on both engines.

mod store_rig;

use kiops_app::model::*;
use kiops_events::EventKind;
use kiops_server::store::*;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store_rig::*;

/// Each test, once on either engine.
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Place::sqlite()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Place::postgres().await).await;
            })+
        }
    };
}

on_both_engines!(
    a_new_database_has_an_administrator_and_keeps_its_identity,
    links_are_used_once_and_sessions_end,
    secrets_are_kept_as_they_come,
    secrets_go_when_nothing_needs_them,
    a_build_that_was_queued_has_its_secrets,
    names_and_images_are_taken_once,
    settings_are_saved_against_their_version,
    source_and_registry_are_saved_against_their_versions,
    one_broken_row_stops_no_other,
    old_logs_go_in_slices_and_say_so,
    the_queue_is_in_order_with_one_build_a_service,
    many_claimers_never_claim_a_build_twice,
    one_key_is_one_build,
    a_lost_lease_writes_nothing,
    a_log_reads_as_it_was_written,
    readers_see_no_hole_while_pieces_are_sealed,
    a_log_survives_writers_that_are_dropped_in_mid_write,
    what_was_answered_survives_a_crash,
    many_logs_at_once_grow_each_by_itself,
    a_log_goes_on_where_it_ends_and_nowhere_else,
    long_lines_are_read_in_parts,
    states_never_go_backwards,
    a_build_can_be_cancelled_in_any_state,
    a_build_is_finished_once,
    a_second_attempt_begins_a_new_spool,
    history_is_complete_on_every_page_and_filter,
    expected_durations_are_the_median_of_the_last_ten,
    a_services_appetite_is_that_of_its_last_builds,
    a_newer_schema_is_refused,
);

async fn a_new_database_has_an_administrator_and_keeps_its_identity(place: Place) {
    let store = place.open().await;
    let (first, second) = tokio::join!(store.installation(), store.installation());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.id, second.id);
    assert!(!first.queue_paused && first.key_check.is_none());
    let admin = store.administrator().await.unwrap();
    assert_eq!((admin.name.as_str(), admin.password_hash.as_deref()), ("admin", None));
    assert_eq!(store.user_by_name("admin").await.unwrap().map(|u| u.id), Some(admin.id.clone()));
    for nobody in ["nobody", "Admin", "admin\0", ""] {
        assert!(store.user_by_name(nobody).await.unwrap().is_none(), "{nobody:?}");
    }

    store.set_key_check(b"first").await.unwrap();
    store.set_key_check(b"second").await.unwrap();
    store.set_queue_paused(true).await.unwrap();
    let entry = AuditEntry {
        org_id: &admin.org_id,
        user_id: Some(&admin.id),
        action: "queue.pause",
        subject: "queue",
        detail: serde_json::json!({"paused": true}),
    };
    store.audit(entry).await.unwrap();
    store.close().await;
    assert!(store.installation().await.is_err(), "a closed store answers nothing");

    let store = place.open().await;
    let again = store.installation().await.unwrap();
    assert_eq!((again.id, again.queue_paused, again.key_check), (first.id, true, Some(b"first".to_vec())));
    assert_eq!(store.administrator().await.unwrap().id, admin.id);
}

async fn links_are_used_once_and_sessions_end(place: Place) {
    let World { store, admin } = World::new(&place).await;
    let later = i64::MAX;
    store.put_setup_link(&admin.id, "old", later).await.unwrap();
    store.put_setup_link(&admin.id, "new", later).await.unwrap();
    assert!(store.setup_link_user("old").await.unwrap().is_none(), "a new link replaces the old one");
    assert_eq!(store.setup_link_user("new").await.unwrap().map(|u| u.id), Some(admin.id.clone()));
    store.put_session(&admin.id, "of whoever was here before", later).await.unwrap();

    let uses = futures::future::join_all((0..4).map(|_| store.use_setup_link("new", "hash"))).await;
    assert_eq!(uses.into_iter().filter(|used| matches!(used, Ok(true))).count(), 1);
    assert!(!store.use_setup_link("new", "other").await.unwrap());
    assert_eq!(store.administrator().await.unwrap().password_hash.as_deref(), Some("hash"));
    assert!(store.session_user("of whoever was here before").await.unwrap().is_none());
    store.put_setup_link(&admin.id, "ran out", 1).await.unwrap();
    assert!(store.setup_link_user("ran out").await.unwrap().is_none());
    assert!(!store.use_setup_link("ran out", "x").await.unwrap());

    store.put_session(&admin.id, "with the password before", later).await.unwrap();
    store.put_setup_link(&admin.id, "not used yet", later).await.unwrap();
    store.set_password_hash(&admin.id, "third").await.unwrap();
    assert_eq!(store.administrator().await.unwrap().password_hash.as_deref(), Some("third"));
    assert!(store.session_user("with the password before").await.unwrap().is_none());
    assert!(store.setup_link_user("not used yet").await.unwrap().is_none());
    let nobody = UserId::from_random(random());
    assert!(matches!(store.set_password_hash(&nobody, "x").await, Err(StoreError::NotFound)));

    assert!(matches!(store.put_session(&nobody, "x", later).await, Err(StoreError::NotFound)));
    assert!(matches!(store.put_setup_link(&nobody, "x", later).await, Err(StoreError::NotFound)));
    store.put_session(&admin.id, "live", later).await.unwrap();
    let mine = format!("WHERE org_id = '{}' AND created_by = '{}'", admin.org_id, admin.id);
    assert_eq!(place.count(format!("SELECT COUNT(*) FROM sessions {mine}")).await, 1);
    store.put_session(&admin.id, "dead", 1).await.unwrap();
    assert_eq!(store.session_user("live").await.unwrap().map(|u| u.name), Some("admin".to_owned()));
    assert!(store.session_user("dead").await.unwrap().is_none());
    assert_eq!(store.drop_expired_sessions().await.unwrap(), 1);
    store.drop_session("live").await.unwrap();
    store.drop_session("live").await.unwrap();
    assert!(store.session_user("live").await.unwrap().is_none());
}

async fn secrets_are_kept_as_they_come(place: Place) {
    let world = World::new(&place).await;
    let (store, secret) = (&world.store, world.secret());
    let service = NewServiceRow { git_secret: Some(secret.clone()), ..world.new_service("app") };
    store.insert_service(&service).await.unwrap();
    assert_eq!(store.service(&service.org_id, &service.id).await.unwrap().git_secret, Some(secret.id.clone()));
    let read = store.secret(&secret.id).await.unwrap();
    assert_eq!((read.key_id, read.sealed, read.created_by), (secret.key_id, secret.sealed, secret.created_by));
    let missing = store.secret(&SecretId::from_random(random())).await;
    assert!(matches!(missing, Err(StoreError::NotFound)));
}

async fn secrets_go_when_nothing_needs_them(place: Place) {
    let world = World::new(&place).await;
    let (store, org) = (&world.store, &world.admin.org_id);
    let exists = async |secret: &SecretRow| match store.secret(&secret.id).await {
        Ok(_) => true,
        Err(StoreError::NotFound) => false,
        Err(error) => panic!("{error}"),
    };
    let (first, login) = (world.secret(), world.secret());
    let service = NewServiceRow {
        git_secret: Some(first.clone()),
        registry_secret: Some(login.clone()),
        ..world.new_service("app")
    };
    store.insert_service(&service).await.unwrap();
    let refused = world.secret();
    let again =
        NewServiceRow { git_secret: Some(refused.clone()), registry: registry("other"), ..world.new_service("app") };
    assert!(matches!(store.insert_service(&again).await, Err(StoreError::Taken("name"))));
    assert!(!exists(&refused).await, "with the service its secret was refused");

    let build = |secret: &SecretRow| {
        let mut new = world.new_build(&service.id);
        new.snapshot.git_secret = Some(secret.id.clone());
        new
    };
    let running = store.queue_build(&build(&first)).await.unwrap().id;
    let second = world.secret();
    let source = |secret| SourceRow { git_url: "https://git.example/a", default_branch: "main", secret };
    store.save_source(org, &service.id, source(SecretChange::Replace(&second)), None).await.unwrap();
    store.save_registry(org, &service.id, &registry("app"), SecretChange::Keep, None).await.unwrap();
    assert_eq!(store.sweep_secrets().await.unwrap(), 0, "a build that is not over needs the replaced one");
    assert!(exists(&first).await && exists(&second).await && exists(&login).await);
    // Nor is a snapshot passed over that cannot be read.
    place.execute(format!("UPDATE builds SET snapshot = snapshot || '}}' WHERE id = '{running}'")).await;
    assert_eq!(store.sweep_secrets().await.unwrap(), 0);
    place
        .execute(format!(
            "UPDATE builds SET snapshot = substr(snapshot, 1, length(snapshot) - 1) WHERE id = '{running}'"
        ))
        .await;

    let claimed = store.claim("me", 60_000, 9).await.unwrap().unwrap();
    world.finish(&claimed, BuildStatus::Success).await;
    assert_eq!(store.sweep_secrets().await.unwrap(), 1);
    assert!(!exists(&first).await && exists(&second).await && exists(&login).await);
    assert!(matches!(store.queue_build(&build(&first)).await, Err(StoreError::Conflict)), "it could not be built");
    assert_eq!(store.service(org, &service.id).await.unwrap().build_count, 1, "no number is used up");

    store.save_source(org, &service.id, source(SecretChange::Forget), None).await.unwrap();
    assert_eq!(store.sweep_secrets().await.unwrap(), 1);
    assert!(!exists(&second).await && exists(&login).await);
    assert_eq!(store.service(org, &service.id).await.unwrap().git_secret, None);
}

async fn a_build_that_was_queued_has_its_secrets(place: Place) {
    let world = World::new(&place).await;
    let (store, org) = (&world.store, &world.admin.org_id);
    let mut current = world.secret();
    let service = NewServiceRow { git_secret: Some(current.clone()), ..world.new_service("app") };
    store.insert_service(&service).await.unwrap();
    for _ in 0..20 {
        let next = world.secret();
        let mut new = world.new_build(&service.id);
        new.snapshot.git_secret = Some(current.id.clone());
        let replace = SourceRow {
            git_url: "https://git.example/a",
            default_branch: "main",
            secret: SecretChange::Replace(&next),
        };
        // Somebody replaces the token while somebody else starts a build with the one before.
        let (saved, queued, swept) = tokio::join!(
            async {
                let saved = store.save_source(org, &service.id, replace, None).await;
                store.sweep_secrets().await.unwrap();
                saved
            },
            store.queue_build(&new),
            store.sweep_secrets(),
        );
        saved.unwrap();
        swept.unwrap();
        match queued {
            Ok(queued) => {
                assert!(store.secret(&current.id).await.is_ok(), "a queued build lost its secret");
                store.request_cancel(org, &queued.id).await.unwrap();
            }
            Err(StoreError::Conflict) => {}
            Err(error) => panic!("{error}"),
        }
        current = next;
    }
    store.sweep_secrets().await.unwrap();
    assert_eq!(place.count("SELECT COUNT(*) FROM secrets".to_owned()).await, 1);
}

async fn names_and_images_are_taken_once(place: Place) {
    let world = World::new(&place).await;
    let World { store, admin } = &world;
    let first = world.new_service("Café");
    store.insert_service(&first).await.unwrap();
    let same_name = NewServiceRow { registry: registry("other"), ..world.new_service("Café") };
    assert!(matches!(store.insert_service(&same_name).await, Err(StoreError::Taken("name"))));
    let same_image = NewServiceRow { registry: registry("Café"), ..world.new_service("other") };
    assert!(matches!(store.insert_service(&same_image).await, Err(StoreError::Taken("image"))));
    let nowhere = RegistryConfig { image_name: String::new(), ..registry("x") };
    for name in ["no image 1", "no image 2"] {
        store.insert_service(&NewServiceRow { registry: nowhere.clone(), ..world.new_service(name) }).await.unwrap();
    }

    let second = world.service("bar").await;
    let org = &admin.org_id;
    let taken = store.save_registry(org, &second, &registry("Café"), SecretChange::Keep, None).await;
    assert!(matches!(taken, Err(StoreError::Taken("image"))));
    store.save_registry(org, &second, &registry("baz"), SecretChange::Keep, None).await.unwrap();
    let source = SourceRow { git_url: "https://git.example/b", default_branch: "trunk", secret: SecretChange::Keep };
    store.save_source(org, &second, source, None).await.unwrap();
    let read = store.service(org, &second).await.unwrap();
    assert_eq!(
        (read.registry, read.git_url.as_str(), read.default_branch.as_str()),
        (RegistryConfig { version: 2, ..registry("baz") }, "https://git.example/b", "trunk")
    );
    assert_eq!((read.build_count, read.cache_generation), (0, 1));
    // A No Cache build begins the next generation, and later ones stay in it; a repeated click does not begin another.
    let generation = async |no_cache: bool, key: &str| {
        let mut new = world.new_build(&second);
        new.snapshot.settings.no_cache = no_cache;
        new.request_key = Some(key.to_owned());
        let id = store.queue_build(&new).await.unwrap().id;
        store.build(org, &id).await.unwrap().snapshot.cache_generation
    };
    assert_eq!(generation(false, "a").await, 1);
    assert_eq!(generation(true, "b").await, 2);
    assert_eq!(generation(true, "b").await, 2);
    assert_eq!(generation(false, "c").await, 2);
    assert_eq!(store.service(org, &second).await.unwrap().cache_generation, 2);

    let names: Vec<_> = store.services(org).await.unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["bar", "Café", "no image 1", "no image 2"]);
    assert_eq!(store.service_by_name(org, "bar").await.unwrap().map(|s| s.id), Some(second.clone()));
    assert!(store.service_by_name(org, "Bar").await.unwrap().is_none());
    assert!(store.service_by_name(org, "bar\0").await.unwrap().is_none());

    let stranger = OrgId::from_random(random());
    assert!(matches!(store.service(&stranger, &second).await, Err(StoreError::NotFound)));
    assert!(store.services(&stranger).await.unwrap().is_empty());
    let foreign = store.save_registry(&stranger, &second, &registry("q"), SecretChange::Keep, None).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)));
    assert!(matches!(store.save_source(&stranger, &second, source, None).await, Err(StoreError::NotFound)));
    let foreign = NewBuild { org_id: stranger.clone(), ..world.new_build(&second) };
    assert!(matches!(store.queue_build(&foreign).await, Err(StoreError::NotFound)));
}

async fn settings_are_saved_against_their_version(place: Place) {
    let world = World::new(&place).await;
    let service = world.service("app").await;
    let (store, org) = (&world.store, &world.admin.org_id);
    let wanted = BuildSettings { no_cache: true, ..BuildSettings::default() };
    let saved = store.save_settings(org, &service, &wanted, Some(0)).await.unwrap();
    assert_eq!((saved.version, saved.no_cache), (1, true));
    assert!(matches!(store.save_settings(org, &service, &wanted, Some(0)).await, Err(StoreError::Conflict)));
    assert_eq!(store.save_settings(org, &service, &wanted, None).await.unwrap().version, 2);
    assert_eq!(store.service(org, &service).await.unwrap().settings, BuildSettings { version: 2, ..wanted.clone() });
    let gone = ServiceId::from_random(random());
    assert!(matches!(store.save_settings(org, &gone, &wanted, Some(0)).await, Err(StoreError::NotFound)));

    let racers = (0..8).map(|_| store.save_settings(org, &service, &wanted, Some(2)));
    let won = futures::future::join_all(racers).await.into_iter().filter(|saved| saved.is_ok()).count();
    assert_eq!(won, 1, "of those who read the same version one saves");
}

async fn source_and_registry_are_saved_against_their_versions(place: Place) {
    let world = World::new(&place).await;
    let service = world.service("app").await;
    let (store, org) = (&world.store, &world.admin.org_id);
    let read = store.service(org, &service).await.unwrap();
    assert_eq!((read.source_version, read.registry.version, read.settings.version), (1, 1, 0));
    let source =
        |branch| SourceRow { git_url: "https://git.example/a", default_branch: branch, secret: SecretChange::Keep };
    let save_source = async |branch, version| store.save_source(org, &service, source(branch), version).await;
    let save_registry = async |image: &str, version| {
        store.save_registry(org, &service, &registry(image), SecretChange::Keep, version).await
    };
    assert_eq!(save_source("one", Some(1)).await.unwrap(), 2);
    assert!(matches!(save_source("late", Some(1)).await, Err(StoreError::Conflict)));
    assert_eq!(save_source("two", None).await.unwrap(), 3);
    assert_eq!(save_registry("one", Some(1)).await.unwrap(), 2, "each part has its own version");
    assert!(matches!(save_registry("late", Some(1)).await, Err(StoreError::Conflict)));
    let read = store.service(org, &service).await.unwrap();
    assert_eq!((read.default_branch.as_str(), read.registry.image_name.as_str()), ("two", "one"));
    assert_eq!((read.source_version, read.registry.version, read.settings.version), (3, 2, 0));
    let racers = futures::future::join_all((0..8).map(|_| save_source("race", Some(3)))).await;
    assert_eq!(racers.into_iter().filter(|saved| saved.is_ok()).count(), 1);
}

async fn one_broken_row_stops_no_other(place: Place) {
    let world = World::new(&place).await;
    let (store, org) = (&world.store, &world.admin.org_id);
    let (a, b, c) = (world.service("a").await, world.service("b").await, world.service("c").await);
    let break_build =
        async |id: &BuildId| place.execute(format!("UPDATE builds SET snapshot = '{{' WHERE id = '{id}'")).await;
    let (a1, b1, c1) = (world.queue(&a).await, world.queue(&b).await, world.queue(&c).await);
    break_build(&a1).await;
    for expected in [&b1, &c1] {
        assert_eq!(&store.claim("me", 60_000, 9).await.unwrap().unwrap().id, expected);
    }
    assert!(store.claim("me", 60_000, 9).await.unwrap().is_none(), "the broken one is passed over");

    break_build(&b1).await;
    let ids = |rows: Vec<BuildRow>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(store.renew("me", 1).await.unwrap()), std::slice::from_ref(&c1));
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(ids(store.adopt("you", 60_000, Adopt::Expired).await.unwrap()), std::slice::from_ref(&c1));
    assert_eq!(ids(store.last_builds(org).await.unwrap()), std::slice::from_ref(&c1));

    let mut later = Vec::new();
    for _ in 0..3 {
        later.push(world.queue(&a).await);
    }
    break_build(&later[1]).await;
    let page = async |before| {
        let query = HistoryQuery { before, ..HistoryQuery::default() };
        store.history(org, &a, &query, 1).await.unwrap().iter().map(|row| row.number).collect::<Vec<_>>()
    };
    // Four builds, of which the first and the third cannot be read.
    assert_eq!(page(None).await, [4, 2], "what is passed over does not look like the end");
    assert_eq!(page(Some(4)).await, [2]);
    let back = HistoryQuery { after: Some(1), ..HistoryQuery::default() };
    let numbers: Vec<_> = store.history(org, &a, &back, 1).await.unwrap().iter().map(|row| row.number).collect();
    assert_eq!(numbers, [4, 2]);

    place.execute(format!("UPDATE services SET settings = '{{' WHERE id = '{b}'")).await;
    let names: Vec<_> = store.services(org).await.unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["a", "c"]);
}

async fn old_logs_go_in_slices_and_say_so(place: Place) {
    const DAY_MS: i64 = 86_400_000;
    let mut dice = Dice::new();
    let world = World::new(&place).await;
    let store = &world.store;
    let (service, other) = (world.service("app").await, world.service("other").await);
    let retention = Retention { days: 90, newest: 2 };
    let mut builds = Vec::new();
    for i in 0..4 {
        let build = world.claimed(&service).await;
        // The first one has more than goes at once.
        for pos in 2..if i == 0 { 72 } else { 4 } {
            store
                .append(&build.id, build.lease_epoch, &append_of(&[entry(pos, 1, &dice.bytes(70_000))]))
                .await
                .unwrap();
        }
        world.finish(&build, BuildStatus::Success).await;
        if i != 1 {
            store.mark_released(&build.id).await.unwrap();
        }
        builds.push(build.id);
    }
    let young = world.claimed(&other).await;
    world.finish(&young, BuildStatus::Success).await;
    store.mark_released(&young.id).await.unwrap();
    assert_eq!(store.remove_old_log(retention).await.unwrap(), None, "nothing is old");
    let age = 100 * DAY_MS;
    place.execute(format!("UPDATE builds SET finished_at = finished_at - {age} WHERE service_id = '{service}'")).await;
    assert_eq!(store.remove_old_log(Retention { days: 101, newest: 0 }).await.unwrap(), None);
    let pieces =
        async |id: &BuildId| place.count(format!("SELECT COUNT(*) FROM log_pieces WHERE build_id = '{id}'")).await;

    // Readers find one line from the first slice on, however much is still to be deleted.
    let before = store.progress(&builds[0]).await.unwrap();
    assert_eq!(store.remove_old_log(retention).await.unwrap(), Some(builds[0].clone()));
    assert!(pieces(&builds[0]).await > 1);
    let only_the_note = async || {
        let progress = store.progress(&builds[0]).await.unwrap();
        assert_eq!((progress.pos, progress.view.rows), (before.pos + 1, 1));
        assert_eq!(progress.view.notes.last().map(|n| (n.code.as_str(), n.row)), Some(("log_removed", 0)));
        assert_eq!((progress.seq, progress.chain_hash), (before.seq, before.chain_hash.clone()));
        for rows in [
            flat(&store.log_by_row(&builds[0], 0, 1_000).await.unwrap()),
            flat(&store.log_after(&builds[0], 0, 1).await.unwrap()),
        ] {
            assert_eq!((rows.len(), rows[0].0, rows[0].1.pos, rows[0].1.rows), (1, 0, before.pos + 1, 1));
            let note: EventKind = serde_json::from_slice(&rows[0].1.payload).unwrap();
            assert!(matches!(&note, EventKind::Note { code, args } if code == "log_removed" && args["days"] == "90"));
        }
        assert!(store.log_by_row(&builds[0], 1, 1_000).await.unwrap().is_empty());
        assert!(store.log_after(&builds[0], before.pos + 1, 1).await.unwrap().is_empty());
    };
    only_the_note().await;
    let mut slices = 1;
    while let Some(id) = store.remove_old_log(retention).await.unwrap() {
        assert_eq!(id, builds[0]);
        slices += 1;
    }
    assert!((3..6).contains(&slices), "{slices} slices");
    only_the_note().await;
    assert_eq!(pieces(&builds[0]).await, 1);
    let row = world.build(&builds[0]).await;
    assert!(row.log_removed_at.is_some_and(|at| at > row.finished_at.unwrap()));
    assert_eq!((row.number, row.status, row.log_verified), (1, BuildStatus::Success, Some(true)));

    // One that the runner still holds waits, the newest ones stay.
    for id in &builds[1..] {
        assert_eq!((world.build(id).await.log_removed_at, follow(store, id, 1).await.len()), (None, 3));
    }
    store.mark_released(&builds[1]).await.unwrap();
    assert_eq!(store.remove_old_log(retention).await.unwrap(), Some(builds[1].clone()));
    assert_eq!(store.remove_old_log(retention).await.unwrap(), None);
    assert_eq!(follow(store, &young.id, 1).await.len(), 1);
}

async fn the_queue_is_in_order_with_one_build_a_service(place: Place) {
    let world = World::new(&place).await;
    let store = &world.store;
    let (a, b, c) = (world.service("a").await, world.service("b").await, world.service("c").await);
    assert!(store.claim("me", 60_000, 10).await.unwrap().is_none(), "nothing waits");
    let a1 = world.queue(&a).await;
    let a2 = world.queue(&a).await;
    let b1 = world.queue(&b).await;
    let c1 = world.queue(&c).await;
    for (id, position) in [(&a1, 1), (&a2, 2), (&b1, 3), (&c1, 4)] {
        let waits = store.queue_place(id).await.unwrap().unwrap();
        assert_eq!((waits.position, waits.service_busy), (position, false));
    }
    let row = world.build(&a1).await;
    assert_eq!((row.status, row.number, row.attempt, row.started_at), (BuildStatus::Queued, 1, 1, None));
    assert_eq!((row.created_by_name.as_str(), row.snapshot), ("admin", world.new_build(&a).snapshot));
    assert_eq!(world.build(&a2).await.number, 2);

    store.set_queue_paused(true).await.unwrap();
    assert!(store.claim("me", 60_000, 10).await.unwrap().is_none(), "paused");
    store.set_queue_paused(false).await.unwrap();

    let first = store.claim("me", 60_000, 2).await.unwrap().unwrap();
    assert_eq!((&first.id, first.status, first.lease_epoch), (&a1, BuildStatus::Starting, 1));
    assert!(first.started_at.is_some_and(|at| at >= first.queued_at));
    assert!(store.queue_place(&a1).await.unwrap().is_none());
    assert!(store.queue_place(&a2).await.unwrap().unwrap().service_busy);
    let second = store.claim("me", 60_000, 2).await.unwrap().unwrap();
    assert_eq!(second.id, b1, "the next of a service that is not busy");
    assert!(store.claim("me", 60_000, 2).await.unwrap().is_none(), "the limit");
    let state = store.queue_state().await.unwrap();
    assert_eq!((state.paused, state.running, state.queued), (false, 2, 2));

    assert_eq!(store.renew("me", 60_000).await.unwrap().len(), 2);
    assert!(store.renew("you", 60_000).await.unwrap().is_empty());
    world.finish(&first, BuildStatus::Success).await;
    assert_eq!(store.claim("me", 60_000, 2).await.unwrap().unwrap().id, a2);
    assert!(store.is_open(&a2).await.unwrap() && !store.is_open(&a1).await.unwrap());
    assert_eq!(store.unreleased().await.unwrap(), [(a1.clone(), 1)]);
    store.mark_released(&a1).await.unwrap();
    store.mark_released(&a2).await.unwrap();
    assert!(store.unreleased().await.unwrap().is_empty());
}

async fn many_claimers_never_claim_a_build_twice(place: Place) {
    const LIMIT: u32 = 3;
    let world = World::new(&place).await;
    let mut services = Vec::new();
    for i in 0..6 {
        services.push(world.service(&format!("s{i}")).await);
    }
    let mut expected = HashSet::new();
    for _ in 0..5 {
        for service in &services {
            expected.insert(world.queue(service).await);
        }
    }
    let world = Arc::new(world);
    let claimers: Vec<_> = (0..8)
        .map(|i| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let (owner, mut mine) = (format!("server {i}"), Vec::new());
                loop {
                    match world.store.claim(&owner, 60_000, LIMIT).await.unwrap() {
                        Some(build) => {
                            let state = world.store.queue_state().await.unwrap();
                            assert!(state.running <= LIMIT, "{} run at once", state.running);
                            tokio::time::sleep(Duration::from_millis(2)).await;
                            world.finish(&build, BuildStatus::Success).await;
                            mine.push((build.service_id, build.number, build.id));
                        }
                        None if world.store.queue_state().await.unwrap().queued == 0 => return mine,
                        None => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                }
            })
        })
        .collect();
    let mut claimed = Vec::new();
    for claimer in claimers {
        claimed.extend(claimer.await.unwrap());
    }
    let once: HashSet<_> = claimed.iter().map(|(_, _, id)| id.clone()).collect();
    assert_eq!(claimed.len(), once.len(), "claimed twice");
    assert_eq!(once, expected);
    for service in &services {
        let mut starts = Vec::new();
        for (_, number, id) in claimed.iter().filter(|(s, ..)| s == service) {
            let build = world.build(id).await;
            starts.push((build.started_at.unwrap(), build.finished_at.unwrap(), *number));
        }
        starts.sort_unstable();
        assert!(starts.windows(2).all(|w| w[0].1 <= w[1].0 && w[0].2 < w[1].2), "one at a time and in order");
    }
}

async fn one_key_is_one_build(place: Place) {
    let world = World::new(&place).await;
    let (a, b) = (world.service("a").await, world.service("b").await);
    let clicks = (0..8).map(|_| {
        let new = NewBuild { request_key: Some("click".to_owned()), ..world.new_build(&a) };
        let store = Arc::clone(&world.store);
        tokio::spawn(async move { store.queue_build(&new).await.unwrap() })
    });
    let queued: Vec<_> = futures::future::join_all(clicks).await.into_iter().map(|q| q.unwrap()).collect();
    assert_eq!(queued.iter().filter(|q| q.created).count(), 1);
    assert!(queued.iter().all(|q| q.number == 1 && q.id == queued[0].id));
    let next = world.store.queue_build(&world.new_build(&a)).await.unwrap();
    assert_eq!((next.number, next.created), (2, true), "no number is used up by a repeat");
    let other = NewBuild { request_key: Some("click".to_owned()), ..world.new_build(&b) };
    assert!(world.store.queue_build(&other).await.unwrap().created, "a key belongs to its service");
    let (store, org) = (&world.store, &world.admin.org_id);
    let earlier = store.build_of_request(org, &a, "click").await.unwrap().unwrap();
    assert_eq!((&earlier.id, earlier.number, earlier.created), (&queued[0].id, 1, false));
    for nothing in ["another", "click\0"] {
        assert!(store.build_of_request(org, &a, nothing).await.unwrap().is_none());
    }
    let stranger = OrgId::from_random(random());
    assert!(store.build_of_request(&stranger, &a, "click").await.unwrap().is_none());

    let log = follow(&world.store, &queued[0].id, 1).await;
    let note: EventKind = serde_json::from_slice(&log[0].payload).unwrap();
    assert!(matches!(&note, EventKind::Note { code, .. } if code == "queued"));
    assert_eq!((log.len(), log[0].pos, log[0].seq, log[0].rows), (1, 1, 0, 1));
    let progress = world.store.progress(&queued[0].id).await.unwrap();
    assert_eq!((progress.pos, progress.seq, progress.view.rows, progress.view.notes.len()), (1, 0, 1, 1));
    assert!(kiops_events::chain::Chain::from_parts(progress.chain_count, &progress.chain_hash).is_some());
}

async fn a_lost_lease_writes_nothing(place: Place) {
    let world = World::new(&place).await;
    let store = &world.store;
    let service = world.service("app").await;
    let old = world.claimed(&service).await;
    assert!(store.adopt("you", 60_000, Adopt::ExpiredAndOwn).await.unwrap().is_empty(), "the lease has not run out");
    assert!(store.adopt("me", 60_000, Adopt::Expired).await.unwrap().is_empty());

    // A restart: the same owner takes its own builds over at once.
    let mine = store.adopt("me", 1, Adopt::ExpiredAndOwn).await.unwrap();
    assert_eq!((mine.len(), mine[0].lease_epoch), (1, old.lease_epoch + 1));
    tokio::time::sleep(Duration::from_millis(5)).await;
    // Another server: only when the lease ran out, and only one of them.
    let others = (0..4).map(|i| store.adopt(["b", "c", "d", "e"][i], 60_000, Adopt::Expired));
    let adopted: Vec<_> = futures::future::join_all(others).await.into_iter().flat_map(|a| a.unwrap()).collect();
    assert_eq!((adopted.len(), adopted[0].lease_epoch), (1, old.lease_epoch + 2));
    let now = &adopted[0];
    assert!(store.renew("me", 60_000).await.unwrap().is_empty());

    for stale in [old.lease_epoch, mine[0].lease_epoch, now.lease_epoch + 1] {
        let append =
            Append { entries: vec![entry(2, 1, b"{}")], progress: progress(2, 1), status: None, snapshot: None };
        assert!(matches!(store.append(&old.id, stale, &append).await, Err(StoreError::Conflict)));
        assert!(matches!(store.next_attempt(&old.id, stale, None).await, Err(StoreError::Conflict)));
        let finish = store.finish(&old.id, stale, &finished(BuildStatus::Success)).await;
        assert!(matches!(finish, Err(StoreError::Conflict)));
    }
    let row = world.build(&old.id).await;
    assert_eq!((row.status, row.attempt, store.progress(&old.id).await.unwrap().pos), (BuildStatus::Starting, 1, 1));
    world.finish(now, BuildStatus::Success).await;

    let nobody = BuildId::from_random(random());
    let append = Append { entries: vec![], progress: progress(0, 0), status: None, snapshot: None };
    assert!(matches!(store.append(&nobody, 1, &append).await, Err(StoreError::NotFound)));
    let waiting = world.queue(&service).await;
    assert!(matches!(store.append(&waiting, 0, &append).await, Err(StoreError::Conflict)), "nobody holds it");
}

fn entry(pos: u64, rows: u64, payload: &[u8]) -> LogEntry {
    LogEntry { pos, attempt: 1, seq: pos - 1, at_ms: 1_700_000_000_000 + pos as i64, rows, payload: payload.to_vec() }
}

/// Batches as different as builds are: single lines, bursts, huge events, events without rows.
fn batch(dice: &mut Dice, from: u64) -> Vec<LogEntry> {
    let (events, bytes) = match dice.below(10) {
        0..5 => (1, 200),
        5..8 => (1 + dice.below(20), 2_000),
        8 => (1 + dice.below(300), 300),
        _ => (1 + dice.below(3), 300_000),
    };
    (0..events)
        .map(|i| {
            let length = dice.below(bytes) as usize;
            let rows = [0, 1, 1, dice.below(50)][dice.below(4) as usize];
            entry(from + i, rows, &dice.bytes(length))
        })
        .collect()
}

fn append_of(entries: &[LogEntry]) -> Append {
    let pos = entries.last().map_or(0, |e| e.pos);
    Append { entries: entries.to_vec(), progress: progress(pos, pos - 1), status: None, snapshot: None }
}

/// A claimed build, and its log as it stands: the note that it was queued.
async fn begun(world: &World) -> (BuildRow, Model) {
    begun_by(world, "app").await
}

async fn begun_by(world: &World, service: &str) -> (BuildRow, Model) {
    let service = world.service(service).await;
    let build = world.claimed(&service).await;
    let model = Model::of(follow(&world.store, &build.id, 1).await);
    (build, model)
}

async fn expect_log(store: &SharedStore, id: &BuildId, model: &Model, dice: &mut Dice) {
    for max_bytes in [1, 100_000, u64::MAX] {
        assert!(follow(store, id, max_bytes).await == model.entries, "followed by {max_bytes} bytes");
    }
    for _ in 0..50 {
        let after = dice.below(model.pos() + 3);
        let pieces = store.log_after(id, after, 1 + dice.below(500_000)).await.unwrap();
        let first = flat(&pieces).into_iter().map(|(_, e)| e).find(|e| e.pos > after);
        assert!(first.as_ref() == model.entries.get(after as usize), "after {after}");
        assert!(pieces.iter().all(|p| p.entries.iter().any(|e| e.pos > after)), "no piece for nothing");
    }
    for _ in 0..100 {
        let most = [2, 100, 5_000][dice.below(3) as usize];
        let (first, count) = (dice.below(model.row_count + 10), dice.below(most));
        let pieces = store.log_by_row(id, first, count).await.unwrap();
        let all = flat(&pieces);
        for (row, e) in &all {
            assert_eq!((*row, e.pos), (model.rows[e.pos as usize - 1], e.pos), "rows are counted alike");
        }
        let wanted: Vec<_> =
            all.into_iter().filter(|(row, e)| e.rows > 0 && *row < first + count && row + e.rows > first).collect();
        assert!(wanted == model.window(first, count), "rows {first} and {count} more");
    }
}

async fn a_log_reads_as_it_was_written(place: Place) {
    let mut dice = Dice::new();
    let world = World::new(&place).await;
    let (build, mut model) = begun(&world).await;
    for _ in 0..120 {
        let entries = batch(&mut dice, model.pos() + 1);
        world.store.append(&build.id, build.lease_epoch, &append_of(&entries)).await.unwrap();
        entries.into_iter().for_each(|e| model.push(e));
    }
    let stored = world.store.progress(&build.id).await.unwrap();
    assert_eq!(stored, progress(model.pos(), model.pos() - 1));
    expect_log(&world.store, &build.id, &model, &mut dice).await;
    world.finish(&build, BuildStatus::Success).await;
    expect_log(&world.store, &build.id, &model, &mut dice).await;
    world.store.mark_released(&build.id).await.unwrap();
    world.store.close().await;
    let store = place.open().await;
    expect_log(&store, &build.id, &model, &mut dice).await;

    let nobody = BuildId::from_random(random());
    assert!(store.log_after(&nobody, 0, 1).await.unwrap().is_empty());
    assert!(store.log_by_row(&nobody, 0, 10).await.unwrap().is_empty());
    assert!(store.log_after(&build.id, u64::MAX, u64::MAX).await.unwrap().is_empty());
    assert!(store.log_by_row(&build.id, u64::MAX, u64::MAX).await.unwrap().is_empty());
}

async fn readers_see_no_hole_while_pieces_are_sealed(place: Place) {
    let world = Arc::new(World::new(&place).await);
    let (build, mut model) = begun(&world).await;
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|i| {
            let (world, id, over) = (Arc::clone(&world), build.id.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut dice = Dice::new();
                while !over.load(Ordering::Relaxed) {
                    let known = world.store.progress(&id).await.unwrap().pos;
                    if i == 0 {
                        let positions: Vec<_> = follow(&world.store, &id, 50_000).await.iter().map(|e| e.pos).collect();
                        assert!(positions.len() as u64 >= known, "an entry that was stored is missing");
                        assert!(positions.iter().zip(1..).all(|(pos, expected)| *pos == expected), "a hole");
                    } else {
                        // Every entry of this log is one row: row and pos go together.
                        let first = dice.below(known);
                        let pieces = world.store.log_by_row(&id, first, 40).await.unwrap();
                        let rows: Vec<_> = flat(&pieces).iter().map(|(row, e)| (*row, e.pos)).collect();
                        assert!(rows.iter().all(|(row, pos)| row + 1 == *pos));
                        let window = (first..(first + 40).min(known)).collect::<Vec<_>>();
                        let got: Vec<_> = rows.iter().map(|(row, _)| *row).filter(|r| window.contains(r)).collect();
                        assert_eq!(got, window);
                    }
                }
            })
        })
        .collect();
    let mut dice = Dice::new();
    for _ in 0..400 {
        let from = model.pos() + 1;
        let entries: Vec<_> = (0..1 + dice.below(5)).map(|i| entry(from + i, 1, &dice.bytes(1_500))).collect();
        world.store.append(&build.id, build.lease_epoch, &append_of(&entries)).await.unwrap();
        entries.into_iter().for_each(|e| model.push(e));
    }
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(follow(&world.store, &build.id, u64::MAX).await == model.entries);
}

async fn a_log_survives_writers_that_are_dropped_in_mid_write(place: Place) {
    let mut dice = Dice::new();
    let world = World::new(&place).await;
    let (build, mut model) = begun(&world).await;
    for _ in 0..150 {
        let entries = batch(&mut dice, model.pos() + 1);
        let append = append_of(&entries);
        let (store, id, epoch) = (Arc::clone(&world.store), build.id.clone(), build.lease_epoch);
        let writer = tokio::spawn(async move { store.append(&id, epoch, &append).await });
        tokio::time::sleep(Duration::from_micros(dice.below(3_000))).await;
        writer.abort();
        let answered = writer.await;
        // A writer that does not know asks, as after a restart.
        let stored = world.store.progress(&build.id).await.unwrap();
        let whole = stored.pos == entries.last().unwrap().pos;
        assert!(whole || stored.pos == model.pos(), "half an append is stored");
        if let Ok(answer) = answered {
            answer.unwrap();
            assert!(whole);
        }
        // Again: whoever was dropped during the commit may have been heard all the same.
        world.store.append(&build.id, build.lease_epoch, &append_of(&entries)).await.unwrap();
        entries.into_iter().for_each(|e| model.push(e));
    }
    expect_log(&world.store, &build.id, &model, &mut dice).await;
}

async fn what_was_answered_survives_a_crash(place: Place) {
    let mut dice = Dice::new();
    let world = World::new(&place).await;
    let (build, mut model) = begun(&world).await;
    for round in 0..6 {
        // Up to the brink of a seal, over it, and far from it.
        for _ in 0..[1, 30, 3][round % 3] {
            let from = model.pos() + 1;
            let entries: Vec<_> = (0..10).map(|i| entry(from + i, 2, &dice.bytes(1_000))).collect();
            world.store.append(&build.id, build.lease_epoch, &append_of(&entries)).await.unwrap();
            entries.into_iter().for_each(|e| model.push(e));
        }
        // As a crash leaves it: the files as they are, with nothing closed.
        let crashed = match place.file() {
            None => place.open().await,
            Some(file) => {
                let name = |suffix: &str| format!("{}{suffix}", file.display());
                let copy = place.folder().join(format!("crash{round}.db"));
                for suffix in ["", "-wal"] {
                    std::fs::copy(name(suffix), format!("{}{suffix}", copy.display())).unwrap();
                }
                open(&DatabaseUrl::sqlite(copy)).await.unwrap()
            }
        };
        expect_log(&crashed, &build.id, &model, &mut dice).await;
        assert_eq!(crashed.progress(&build.id).await.unwrap(), progress(model.pos(), model.pos() - 1));
        if place.file().is_some() {
            let again = crashed.adopt("me", 60_000, Adopt::ExpiredAndOwn).await.unwrap();
            assert_eq!(again[0].lease_epoch, build.lease_epoch + 1);
            let next = entry(model.pos() + 1, 1, b"goes on");
            crashed.append(&build.id, again[0].lease_epoch, &append_of(&[next])).await.unwrap();
        }
        crashed.close().await;
    }
}

/// What is wrong with one append is nothing to those that are written with it.
async fn many_logs_at_once_grow_each_by_itself(place: Place) {
    let world = World::new(&place).await;
    let store = &world.store;
    let mut builds = Vec::new();
    for i in 0..40 {
        builds.push(begun_by(&world, &format!("app{i}")).await);
    }
    let nobody = BuildId::from_random(random());
    for round in 0..3 {
        let appends = builds.iter().enumerate().map(|(i, (build, model))| {
            let next = append_of(&[entry(model.pos() + 1, 1, format!("{i} {round}").as_bytes())]);
            let nobody = &nobody;
            async move {
                match i % 8 {
                    // Somebody else's by now.
                    6 => store.append(&build.id, build.lease_epoch + 1, &next).await,
                    // In the last round only: it fails the transaction that the others share.
                    7 if round == 2 => store.append(nobody, build.lease_epoch, &next).await,
                    _ => store.append(&build.id, build.lease_epoch, &next).await,
                }
            }
        });
        let results = futures::future::join_all(appends).await;
        for (i, (result, (_, model))) in results.into_iter().zip(&mut builds).enumerate() {
            match i % 8 {
                6 => assert!(matches!(result, Err(StoreError::Conflict)), "{i}: {result:?}"),
                7 if round == 2 => assert!(matches!(result, Err(StoreError::NotFound)), "{i}: {result:?}"),
                _ => {
                    result.unwrap();
                    let next = entry(model.pos() + 1, 1, format!("{i} {round}").as_bytes());
                    model.push(next);
                }
            }
        }
    }
    for (build, model) in &builds {
        assert!(follow(store, &build.id, 1).await == model.entries);
    }
}

async fn a_log_goes_on_where_it_ends_and_nowhere_else(place: Place) {
    let world = World::new(&place).await;
    let store = &world.store;
    let (build, mut model) = begun(&world).await;
    let put = async |entries: &[LogEntry]| store.append(&build.id, build.lease_epoch, &append_of(entries)).await;
    let entries = [entry(2, 1, b"a"), entry(3, 1, b"b")];
    put(&entries).await.unwrap();
    put(&entries).await.unwrap();
    entries.into_iter().for_each(|e| model.push(e));
    assert!(follow(store, &build.id, 1).await == model.entries, "the same append again is none");

    for bad in [vec![entry(3, 1, b"x"), entry(4, 1, b"x")], vec![entry(5, 1, b"x")], vec![entry(2, 1, b"x")]] {
        assert!(matches!(put(&bad).await, Err(StoreError::Conflict)), "{:?}", bad[0].pos);
    }
    assert!(matches!(put(&[entry(4, 1, b""), entry(6, 1, b"")]).await, Err(StoreError::Other(_))));
    let wrong = Append { entries: vec![entry(4, 1, b"x")], progress: progress(5, 4), status: None, snapshot: None };
    assert!(matches!(store.append(&build.id, build.lease_epoch, &wrong).await, Err(StoreError::Other(_))));

    // Progress without entries (a view that changed) moves nothing.
    let still = Append { entries: vec![], progress: progress(3, 9), status: None, snapshot: None };
    store.append(&build.id, build.lease_epoch, &still).await.unwrap();
    let moved = Append { entries: vec![], progress: progress(4, 9), status: None, snapshot: None };
    assert!(matches!(store.append(&build.id, build.lease_epoch, &moved).await, Err(StoreError::Conflict)));
    assert_eq!(store.progress(&build.id).await.unwrap(), progress(3, 9));
    assert!(follow(store, &build.id, 1).await == model.entries);
}

async fn long_lines_are_read_in_parts(place: Place) {
    let world = World::new(&place).await;
    let (build, mut model) = begun(&world).await;
    let line = vec![b'x'; 200_000];
    for _ in 0..10 {
        let from = model.pos() + 1;
        let entries: Vec<_> = (0..10).map(|i| entry(from + i, 1, &line)).collect();
        world.store.append(&build.id, build.lease_epoch, &append_of(&entries)).await.unwrap();
        entries.into_iter().for_each(|e| model.push(e));
    }
    let (mut next, mut answers) = (0, 0);
    while next < model.row_count {
        let all = flat(&world.store.log_by_row(&build.id, next, 1_000).await.unwrap());
        let bytes: usize = all.iter().map(|(_, e)| e.payload.len()).sum();
        assert!(bytes < 9 << 20, "{bytes} at once");
        let end = all.last().map(|(row, e)| row + e.rows).unwrap();
        assert!(end > next);
        (next, answers) = (end, answers + 1);
    }
    assert_eq!((next, answers), (model.row_count, 3));
}

async fn states_never_go_backwards(place: Place) {
    let world = World::new(&place).await;
    let (build, _) = begun(&world).await;
    let mut pos = 1;
    for (sent, expected) in [
        (Some(BuildStatus::CheckingOut), BuildStatus::CheckingOut),
        (Some(BuildStatus::Pushing), BuildStatus::Pushing),
        (Some(BuildStatus::Building), BuildStatus::Pushing),
        (None, BuildStatus::Pushing),
        (Some(BuildStatus::Success), BuildStatus::Pushing),
    ] {
        pos += 1;
        let append = Append { status: sent, ..append_of(&[entry(pos, 1, b"{}")]) };
        world.store.append(&build.id, build.lease_epoch, &append).await.unwrap();
        assert_eq!(world.build(&build.id).await.status, expected, "after {sent:?}");
    }
    let unfinished = world.store.finish(&build.id, build.lease_epoch, &finished(BuildStatus::Building)).await;
    assert!(matches!(unfinished, Err(StoreError::Other(_))));
}

async fn a_build_can_be_cancelled_in_any_state(place: Place) {
    let world = World::new(&place).await;
    let (store, org) = (&world.store, &world.admin.org_id);
    let service = world.service("app").await;
    let waiting = world.queue(&service).await;
    let stranger = OrgId::from_random(random());
    assert!(matches!(store.request_cancel(&stranger, &waiting).await, Err(StoreError::NotFound)));
    assert_eq!(store.request_cancel(org, &waiting).await.unwrap(), CancelOutcome::WasQueued);
    assert_eq!(store.request_cancel(org, &waiting).await.unwrap(), CancelOutcome::Final);
    let row = world.build(&waiting).await;
    assert_eq!((row.status, row.started_at), (BuildStatus::Cancelled, None));
    assert!(row.finished_at.is_some() && row.cancel_requested_at == row.finished_at);
    assert!(store.unreleased().await.unwrap().is_empty(), "nothing was ever held for it");
    let codes: Vec<_> = store.progress(&waiting).await.unwrap().view.notes.into_iter().map(|n| n.code).collect();
    assert_eq!((codes, follow(store, &waiting, 1).await.len()), (vec!["queued".to_owned(), "cancelled".to_owned()], 2));
    assert!(store.claim("me", 60_000, 10).await.unwrap().is_none());

    for state in [BuildStatus::Starting, BuildStatus::CheckingOut, BuildStatus::Building, BuildStatus::Pushing] {
        let build = world.claimed(&service).await;
        let append = Append { status: Some(state), ..append_of(&[entry(2, 1, b"{}")]) };
        store.append(&build.id, build.lease_epoch, &append).await.unwrap();
        let never_asked = store.finish(&build.id, build.lease_epoch, &finished(BuildStatus::Cancelled)).await;
        assert!(never_asked.is_err(), "cancelled needs a request");
        assert_eq!(store.request_cancel(org, &build.id).await.unwrap(), CancelOutcome::Requested);
        let asked = world.build(&build.id).await.cancel_requested_at;
        assert_eq!(store.request_cancel(org, &build.id).await.unwrap(), CancelOutcome::Requested);
        let row = world.build(&build.id).await;
        assert_eq!((row.status, row.cancel_requested_at), (state, asked), "the first request counts");
        let held = store.renew("me", 60_000).await.unwrap();
        assert!(held[0].cancel_requested_at.is_some(), "whoever holds it sees the request");
        world.finish(&build, BuildStatus::Cancelled).await;
        assert_eq!(store.request_cancel(org, &build.id).await.unwrap(), CancelOutcome::Final);
    }

    // Cancel and claim at the same moment: one of the two, never both.
    for _ in 0..20 {
        let id = world.queue(&service).await;
        let (cancelled, claimed) = tokio::join!(store.request_cancel(org, &id), store.claim("me", 60_000, 10));
        let (cancelled, claimed) = (cancelled.unwrap(), claimed.unwrap());
        assert_eq!(cancelled == CancelOutcome::WasQueued, claimed.is_none());
        if let Some(build) = claimed {
            world.finish(&build, BuildStatus::Cancelled).await;
        }
    }
}

async fn a_build_is_finished_once(place: Place) {
    let world = World::new(&place).await;
    let store = &world.store;
    let (build, _) = begun(&world).await;
    let done = FinishBuild {
        image_tag: Some("registry.example:5000/team/app:main-1-0123456".to_owned()),
        digest: Some("sha256:00".to_owned()),
        image_size_bytes: Some(1 << 40),
        failure_code: Some("oom".to_owned()),
        diagnosis: Some(Diagnosis {
            group: "resources".to_owned(),
            code: "oom".to_owned(),
            arguments: [("memory".to_owned(), "4 GiB".to_owned())].into(),
            confidence: 0.5,
            evidence: vec![],
            message: String::new(),
            actions: vec!["rebuild".to_owned()],
        }),
        ..finished(BuildStatus::Success)
    };
    let finishers = (0..6).map(|_| {
        let (store, id, done) = (Arc::clone(store), build.id.clone(), done.clone());
        tokio::spawn(async move { store.finish(&id, build.lease_epoch, &done).await.unwrap() })
    });
    let won = futures::future::join_all(finishers).await.into_iter().filter(|f| *f.as_ref().unwrap()).count();
    assert_eq!(won, 1);
    let later = store.finish(&build.id, build.lease_epoch, &finished(BuildStatus::Failure)).await.unwrap();
    assert!(!later && !store.finish(&build.id, 99, &finished(BuildStatus::Failure)).await.unwrap());
    let row = world.build(&build.id).await;
    assert_eq!((row.status, row.image_tag, row.digest), (BuildStatus::Success, done.image_tag, done.digest));
    assert_eq!(
        (row.image_size_bytes, row.failure_code, row.diagnosis),
        (Some(1 << 40), done.failure_code, done.diagnosis)
    );
    assert_eq!(row.log_verified, Some(true));
    assert!(row.finished_at >= row.started_at);

    let append = append_of(&[entry(2, 1, b"{}")]);
    assert!(matches!(store.append(&build.id, build.lease_epoch, &append).await, Err(StoreError::Conflict)));
    assert!(matches!(store.next_attempt(&build.id, build.lease_epoch, None).await, Err(StoreError::Conflict)));
    assert!(store.adopt("me", 1, Adopt::ExpiredAndOwn).await.unwrap().is_empty());
}

async fn a_second_attempt_begins_a_new_spool(place: Place) {
    let world = World::new(&place).await;
    let (build, _) = begun(&world).await;
    let append = Append { status: Some(BuildStatus::Pushing), ..append_of(&[entry(2, 1, b"a"), entry(3, 1, b"b")]) };
    world.store.append(&build.id, build.lease_epoch, &append).await.unwrap();
    let second = world.store.next_attempt(&build.id, build.lease_epoch, None).await.unwrap();
    assert_eq!((second.attempt, second.status, second.number), (2, BuildStatus::Starting, 1));
    assert_eq!(second.lease_epoch, build.lease_epoch);
    let place = world.store.progress(&build.id).await.unwrap();
    assert_eq!((place.pos, place.attempt, place.seq, place.chain_count), (3, 2, 0, 0));
    assert_eq!(kiops_events::chain::Chain::from_parts(0, &place.chain_hash), Some(Default::default()));
    let next = LogEntry { attempt: 2, seq: 1, ..entry(4, 1, b"c") };
    let progress = Progress { attempt: 2, ..progress(4, 1) };
    let append = Append { entries: vec![next], progress, status: Some(BuildStatus::CheckingOut), snapshot: None };
    world.store.append(&build.id, build.lease_epoch, &append).await.unwrap();
    assert_eq!(world.build(&build.id).await.status, BuildStatus::CheckingOut);
    let attempts: Vec<_> = follow(&world.store, &build.id, 1).await.iter().map(|e| e.attempt).collect();
    assert_eq!(attempts, [1, 1, 1, 2]);
    world.finish(&second, BuildStatus::Failure).await;
    assert_eq!(world.store.unreleased().await.unwrap(), [(build.id, 2)]);
}

async fn history_is_complete_on_every_page_and_filter(place: Place) {
    let mut dice = Dice::new();
    let world = World::new(&place).await;
    let (store, org) = (&world.store, &world.admin.org_id);
    let (service, other) = (world.service("app").await, world.service("other").await);
    let mut all = Vec::new();
    for i in 0..60u64 {
        let branch = ["main", "dev", "refs/tags/v1"][dice.below(3) as usize];
        let new = NewBuild { branch: branch.to_owned(), ..world.new_build(&service) };
        let id = store.queue_build(&new).await.unwrap().id;
        // The last ones stay in the queue, and one of them runs.
        let status = [BuildStatus::Success, BuildStatus::Failure, BuildStatus::Cancelled][dice.below(3) as usize];
        if i < 55 {
            let build = store.claim("me", 60_000, 10).await.unwrap().unwrap();
            if status == BuildStatus::Cancelled {
                store.request_cancel(org, &id).await.unwrap();
            }
            world.finish(&build, status).await;
        }
        all.push((i as i64 + 1, branch, if i < 55 { Some(status) } else { None }));
    }
    store.claim("me", 60_000, 10).await.unwrap().unwrap();
    world.claimed(&other).await;

    let filters = [
        (None, None),
        (Some(StatusFilter::Success), Some(BuildStatus::Success)),
        (Some(StatusFilter::Failure), Some(BuildStatus::Failure)),
        (Some(StatusFilter::Cancelled), Some(BuildStatus::Cancelled)),
        (Some(StatusFilter::InProgress), None),
    ];
    for (status, kept) in filters {
        for branch in [None, Some("main"), Some("dev"), Some("never"), Some("main\0")] {
            let mut wanted: Vec<i64> = all
                .iter()
                .filter(|(_, b, s)| branch.is_none_or(|branch| branch == *b) && (status.is_none() || *s == kept))
                .map(|(number, ..)| *number)
                .collect();
            wanted.reverse();
            let query = HistoryQuery { status, branch: branch.map(str::to_owned), ..Default::default() };
            let page = async |before, after| {
                let query = HistoryQuery { before, after, ..query.clone() };
                let rows = store.history(org, &service, &query, 7).await.unwrap();
                assert!(rows.iter().all(|b| b.service_id == service));
                rows.iter().map(|b| b.number).collect::<Vec<_>>()
            };
            let (mut seen, mut before) = (Vec::new(), None);
            loop {
                let numbers = page(before, None).await;
                seen.extend(numbers.iter().take(7));
                if numbers.len() <= 7 {
                    break;
                }
                before = seen.last().copied();
            }
            assert_eq!(seen, wanted, "{status:?} {branch:?}");
            let (mut seen, mut after) = (Vec::new(), Some(0));
            loop {
                let numbers = page(None, after).await;
                let more = numbers.len() > 7;
                seen.extend(numbers.iter().rev().take(7));
                if !more {
                    break;
                }
                after = seen.last().copied();
            }
            seen.reverse();
            assert_eq!(seen, wanted, "back: {status:?} {branch:?}");
        }
    }
    let between = HistoryQuery { before: Some(20), after: Some(3), ..Default::default() };
    let between = store.history(org, &service, &between, 4).await.unwrap();
    assert_eq!(between.iter().map(|b| b.number).collect::<Vec<_>>(), [8, 7, 6, 5, 4]);
    let stranger = OrgId::from_random(random());
    assert!(store.history(&stranger, &service, &HistoryQuery::default(), 7).await.unwrap().is_empty());

    let last: HashSet<_> =
        store.last_builds(org).await.unwrap().into_iter().map(|b| (b.service_id, b.number)).collect();
    assert_eq!(last, HashSet::from([(service.clone(), 60), (other.clone(), 1)]));
    assert_eq!(store.last_build(&service, false).await.unwrap().map(|b| b.number), Some(60));
    let success = all.iter().filter(|(.., s)| *s == Some(BuildStatus::Success)).map(|(n, ..)| *n).max();
    assert_eq!(store.last_build(&service, true).await.unwrap().map(|b| b.number), success);
    assert!(store.last_build(&other, true).await.unwrap().is_none());
}

async fn expected_durations_are_the_median_of_the_last_ten(place: Place) {
    let world = World::new(&place).await;
    let service = world.service("app").await;
    assert_eq!(world.store.expected_duration_ms(&service).await.unwrap(), None);
    let mut real = Vec::new();
    for i in 0..13 {
        let build = world.claimed(&service).await;
        tokio::time::sleep(Duration::from_millis(i * 3)).await;
        world.finish(&build, if i == 12 { BuildStatus::Failure } else { BuildStatus::Success }).await;
        let build = world.build(&build.id).await;
        real.push(build.finished_at.unwrap() - build.started_at.unwrap());
    }
    let mut last_ten = real[2..12].to_vec();
    last_ten.sort_unstable();
    let median = last_ten[4] + (last_ten[5] - last_ten[4]) / 2;
    assert_eq!(world.store.expected_duration_ms(&service).await.unwrap(), Some(median));
}

async fn a_services_appetite_is_that_of_its_last_builds(place: Place) {
    let world = World::new(&place).await;
    let store = &world.store;
    let (service, other) = (world.service("app").await, world.service("other").await);
    assert_eq!(store.appetite(&service).await.unwrap(), Appetite::default());
    let finish = async |build: &BuildRow, status, peak_anon_bytes, outgrown_bytes| {
        let finish = FinishBuild { peak_anon_bytes, outgrown_bytes, ..finished(status) };
        assert!(store.finish(&build.id, build.lease_epoch, &finish).await.unwrap());
    };
    for peak in 0..12_u64 {
        let build = world.claimed(&service).await;
        finish(&build, BuildStatus::Success, Some(peak << 30).filter(|peak| *peak > 0), None).await;
    }
    // What a failure took says nothing about what is enough, and what another service takes nothing about this one.
    finish(&world.claimed(&service).await, BuildStatus::Failure, Some(99), None).await;
    finish(&world.claimed(&other).await, BuildStatus::Success, Some(98), Some(97 << 30)).await;
    let appetite = store.appetite(&service).await.unwrap();
    let peaks: Vec<_> = appetite.successes.iter().map(|build| build.peak_anon_bytes.unwrap() >> 30).collect();
    assert_eq!((peaks, appetite.outgrown_bytes), ((2..12).rev().collect(), None));

    // Decided when its turn has come: a note and what it says are stored at once.
    let build = world.claimed(&service).await;
    let snapshot = BuildSnapshot { resolved_profile: Profile::Small, ..build.snapshot.clone() };
    let append = Append { snapshot: Some(snapshot.clone()), ..append_of(&[entry(2, 1, b"{}")]) };
    store.append(&build.id, build.lease_epoch, &append).await.unwrap();
    assert_eq!(world.build(&build.id).await.snapshot, snapshot);
    // What an attempt has outgrown counts once the build is over, however the next attempt ends.
    let larger =
        Larger { snapshot: BuildSnapshot { resolved_profile: Profile::Medium, ..snapshot }, outgrown_bytes: 2 << 30 };
    let stale = store.next_attempt(&build.id, build.lease_epoch - 1, Some(&larger)).await;
    assert!(matches!(stale, Err(StoreError::Conflict)));
    let second = store.next_attempt(&build.id, build.lease_epoch, Some(&larger)).await.unwrap();
    assert_eq!((second.attempt, &second.snapshot), (2, &larger.snapshot));
    assert_eq!(store.appetite(&service).await.unwrap().outgrown_bytes, None);
    finish(&second, BuildStatus::Success, None, None).await;
    let appetite = store.appetite(&service).await.unwrap();
    assert_eq!(appetite.successes[0], PastBuild { profile: Profile::Medium, peak_anon_bytes: None });
    assert_eq!(appetite.outgrown_bytes, Some(2 << 30));
    finish(&world.claimed(&service).await, BuildStatus::Failure, None, Some(8 << 30)).await;
    assert_eq!(store.appetite(&service).await.unwrap().outgrown_bytes, Some(8 << 30));
    // After thirty days it may be tried again.
    const DAYS: i64 = 86_400_000;
    place.execute(format!("UPDATE builds SET finished_at = finished_at - {}", 30 * DAYS)).await;
    assert_eq!(store.appetite(&service).await.unwrap().outgrown_bytes, None);
}

async fn a_newer_schema_is_refused(place: Place) {
    place.open().await.close().await;
    place.open().await.close().await;
    for (statement, refused) in [
        (
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9999, 'of the future', TRUE, 'x', 0)",
            true,
        ),
        ("DELETE FROM _sqlx_migrations WHERE version = 9999", false),
    ] {
        place.execute(statement.to_owned()).await;
        match place.try_open().await {
            Err(StoreError::NewerSchema { found: 9999, known: 2 }) if refused => {}
            Ok(store) if !refused => store.close().await,
            other => panic!("refused should be {refused}: {:?}", other.err()),
        }
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_opened_says_so_without_its_password() {
    let url: DatabaseUrl = "postgres://kiops:hunter22@127.0.0.1:1/kiops".parse().unwrap();
    let error = open(&url).await.err().expect("nobody listens there");
    let said = format!("{error:?} {error}");
    assert!(said.contains("127.0.0.1:1") && !said.contains("hunter22"), "{said}");
}
