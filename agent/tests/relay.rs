//! Following an attempt: every event once and in order, whatever happens to the connection, and quickly.

mod common;

use common::lab;
use kiops_events::event::{AgentEnd, EventKind};
use kiops_events::wire::Frame;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A small generator of one's own: the seed is printed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[tokio::test]
async fn a_reader_that_comes_back_at_any_place_gets_every_event_once() {
    let lab = lab().await;
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut random = Random(seed);
    let dockerfile = "FROM alpine:3\nRUN i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; sleep 0.2\n\
                      RUN for i in 1 2 3 4 5 6 7 8 9; do echo slow $i; sleep 0.1; done\n";
    let mut agent = lab.attempt_of(dockerfile).await.start();
    let mut events = Vec::new();
    let ended = |events: &Vec<(kiops_events::AgentEvent, Vec<u8>)>| {
        events.last().is_some_and(|(e, _)| matches!(e.kind, EventKind::Result(_)))
    };
    let mut connections = 0;
    while !ended(&events) {
        let mut follow = agent.follow(events.len() as u64).await;
        connections += 1;
        for _ in 0..random.below(12) {
            let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(200), follow.event()).await else { break };
            assert_eq!(event.0.seq, events.len() as u64 + 1);
            events.push(event);
            if ended(&events) {
                break;
            }
        }
        if random.below(2) == 0 {
            follow.send(Frame::Ack(events.len() as u64)).await;
        }
    }
    assert!(connections > 5, "{connections}");
    // Whoever asks from the beginning gets the same bytes.
    let again = agent.follow_to_end(0).await;
    assert!(again.iter().map(|(_, payload)| payload).eq(events.iter().map(|(_, payload)| payload)));
    let story = agent.story(events).await;
    assert_eq!(story.result().end, AgentEnd::Success, "{}", story.text());
    assert_eq!(story.lines_of("RUN i=0").len(), 3000);
    assert_eq!(story.lines_of("RUN for").len(), 9);
}

#[tokio::test]
async fn several_readers_at_once_see_the_same() {
    let lab = lab().await;
    let agent = lab.attempt_of("FROM alpine:3\nRUN for i in 1 2 3; do echo $i; sleep 0.1; done\n").await.start();
    let (mut first, mut second) = (agent.follow(0).await, agent.follow(0).await);
    let (events, others) = tokio::join!(first.until_result(), second.until_result());
    assert!(others.iter().map(|(_, payload)| payload).eq(events.iter().map(|(_, payload)| payload)));
    // Only now: a released agent leaves, whoever else is still reading.
    first.send(Frame::Release).await;
    agent.story(events).await;
}

#[tokio::test]
async fn nobody_who_comes_is_waited_for_only_so_long() {
    let lab = lab().await;
    let mut attempt = lab.attempt_of("FROM alpine:3\nRUN echo alone\n").await;
    attempt.spec.limits.hold_s = 1;
    let mut agent = attempt.start();
    assert_eq!(agent.wait().await.code(), Some(0));
}

/// From the moment in which a step writes to the moment in which the relay's client has the line.
#[tokio::test]
async fn a_line_is_with_the_reader_at_once() {
    let lab = lab().await;
    let dockerfile =
        "FROM alpine:3\nRUN sleep 0.5; for i in $(seq 1 40); do cat /proc/uptime; sleep 0.05; done # unbuffered\n";
    let mut agent = lab.attempt_of(dockerfile).await.start();
    let mut follow = agent.follow(0).await;
    let mut delays = Vec::new();
    loop {
        let (event, _) = follow.event().await.unwrap();
        match event.kind {
            EventKind::Lines(lines) => {
                let now = std::fs::read_to_string("/proc/uptime").unwrap();
                let seconds = |text: &str| text.split(' ').next().and_then(|t| t.parse::<f64>().ok());
                for line in lines.text.lines().filter(|line| line.contains('.')) {
                    if let (Some(now), Some(then)) = (seconds(&now), seconds(line)) {
                        delays.push(((now - then) * 1000.0).round() as i64);
                    }
                }
            }
            EventKind::Result(_) => break,
            _ => {}
        }
    }
    follow.send(Frame::Release).await;
    agent.wait().await;
    delays.sort_unstable();
    assert_eq!(delays.len(), 40, "{delays:?}");
    println!("from step to reader: median {} ms, most {} ms (to 10 ms)", delays[20], delays[39]);
    // Of the quicker ones: what else the machine does meanwhile is not the relay's.
    assert!(delays[10] <= 100, "{delays:?}");
}
