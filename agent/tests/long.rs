//! Long logs: nothing is lost, and neither time nor memory grow with them.

mod common;

use common::{Lab, lab};
use kiops_events::event::{AgentEnd, EventKind};
use std::time::Instant;

/// A line that the step below prints.
fn line(n: u32) -> String {
    format!("{n:07} the quick brown fox jumps over the lazy dog, and on, and on, and on and on and on...")
}

/// Made in one step and printed in another: what is measured is how fast it can be printed.
const MILLION: &str = concat!(
    "FROM alpine:3\n",
    "RUN awk 'BEGIN { for (i = 1; i <= 1000000; i++) printf(\"%07d the quick brown fox jumps over the lazy dog, ",
    "and on, and on, and on and on and on...\\n\", i) }' > /lines\n",
    "RUN cat /lines\n"
);

#[tokio::test]
async fn a_million_lines_arrive_complete() {
    let lab = lab().await;
    let mut agent = lab.attempt_of(MILLION).await.start();
    let since = Instant::now();
    let mut follow = agent.follow(0).await;
    let (mut count, mut first_at, mut last_at, mut bytes) = (0, None, None, 0);
    let mut peak_kb = 0;
    loop {
        let (event, payload) = follow.event().await.unwrap();
        bytes += payload.len();
        match event.kind {
            EventKind::Lines(lines) if lines.text.contains("quick brown") => {
                first_at.get_or_insert(since.elapsed());
                last_at = Some(since.elapsed());
                for text in lines.lines() {
                    count += 1;
                    assert!(text == line(count), "line {count} is {text:?}, event {} of {:?}", event.seq, lines.place);
                }
            }
            EventKind::Result(result) => {
                assert_eq!(result.end, AgentEnd::Success);
                let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
                let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
                peak_kb += peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
                break;
            }
            _ => {}
        }
    }
    follow.send(kiops_events::wire::Frame::Release).await;
    agent.wait().await;
    let took = last_at.unwrap() - first_at.unwrap();
    println!("1,000,000 lines in {took:?}, {bytes} bytes of events; the agent peaked at {} MB", peak_kb / 1024);
    assert_eq!(count, 1_000_000);
    assert!(peak_kb < 100 * 1024, "{peak_kb} kB");
}

#[tokio::test]
async fn beyond_the_cap_a_log_is_left_out_and_that_is_said() {
    let lab: &Lab = lab().await;
    let mut attempt = lab.attempt_of("FROM alpine:3\nRUN seq 1 500000; echo the reason >&2; exit 1\n").await;
    attempt.spec.limits.log_cap_bytes = 100_000;
    let story = attempt.run().await;
    assert_eq!(story.result().end, AgentEnd::Failure);
    assert_eq!(story.note("log_capped").unwrap()["limit_bytes"], "100000");
    let left_out: u64 = story.note("log_left_out").unwrap()["bytes"].parse().unwrap();
    assert_eq!(story.result().left_out_bytes, left_out);
    // The cap counts what the step printed, line ends included; the `#N` before each line comes on top.
    let printed: u64 = (1..=500_000u32).map(|n| n.to_string().len() as u64 + 1).sum();
    let kept = printed - left_out;
    // The tail is 64 KiB, and up to an event more: on a busy machine much comes at once, and an event has 1 MiB at most.
    assert!(kept < 100_000 + (64 << 10) + (1 << 20), "{kept}");
    let text = story.text();
    // The end of the failed step is there, and what buildctl says.
    assert!(text.contains("the reason") && text.contains("error: failed to solve"));
}
