//! Stories that are the same wherever builds run: told once, and run for each runner.

pub mod build;
pub mod queue;
pub mod restart;

use crate::builds_rig::{Data, Wishes, World};
use kiops_app::model::BuildId;
use std::sync::Arc;

/// Whom a story kills.
#[derive(Clone, Copy)]
pub enum Victim {
    Agent,
    Daemon,
}

/// Where the builds of a story run.
pub trait Place {
    /// What a server over this data needs there.
    async fn wishes(&self, data: &Data, wishes: Wishes) -> Wishes;

    /// The process that does this for the build's running attempt.
    async fn process(&self, world: &World, id: &BuildId, victim: Victim) -> i32;

    async fn world_on(&self, data: Arc<Data>, wishes: Wishes) -> World {
        let wishes = self.wishes(&data, wishes).await;
        World::open(data, wishes).await
    }

    /// With nothing at work yet.
    async fn asleep_on(&self, data: Arc<Data>) -> World {
        let wishes = self.wishes(&data, Wishes::default()).await;
        World::asleep(data, wishes).await
    }

    async fn world_with(&self, wishes: Wishes) -> World {
        self.world_on(Arc::new(Data::new()), wishes).await
    }

    async fn world(&self) -> World {
        self.world_with(Wishes::default()).await
    }
}

/// One test a story, on worlds of `$place`. `$turn` is held meanwhile.
macro_rules! tell_in {
    ($place:expr, $turn:expr) => {
        $crate::stories::tell! { $place, $turn,
            build::a_click_becomes_an_image_in_the_registry,
            build::a_failure_says_why_and_where,
            build::what_git_and_the_registry_refuse_is_told_apart,
            build::a_live_page_sees_everything_once,
            build::scripts_follow_the_events_and_search_the_log,
            build::secrets_stay_out_of_spool_store_and_text,
            build::the_cache_keeps_what_has_not_changed,
            build::no_cache_reuses_nothing_and_later_builds_go_on_from_it,
            build::a_registry_that_refuses_the_login_is_told_as_such,
            build::everybody_who_watches_sees_the_same,
            queue::builds_run_in_order_one_a_service_and_as_many_as_may,
            queue::a_waiting_build_is_cancelled_at_once_and_a_running_one_stops,
            queue::a_build_that_hangs_ends_at_its_time_limit,
            queue::the_same_click_twice_is_one_build,
            queue::what_cannot_be_built_is_refused_before_it_is_queued,
            restart::a_server_that_restarts_in_mid_build_goes_on_without_a_hole,
            restart::a_build_that_ended_while_nobody_looked_is_taken_up,
            restart::a_cancel_request_outlives_the_server,
            restart::a_killed_agent_is_tried_once_more,
            restart::a_killed_daemon_is_tried_once_more_and_visibly,
        }
    };
}

macro_rules! tell {
    ($place:expr, $turn:expr, $($room:ident::$story:ident,)+) => {
        $(
            #[tokio::test]
            async fn $story() {
                let _turn = $turn.await;
                $crate::stories::$room::$story(&$place).await;
            }
        )+
    };
}

pub(crate) use {tell, tell_in};
