//! The list of steps, each with its bar on one time axis, and what the build uses.

use super::live::Live;
use super::log::plain_click;
use crate::locales::{t, tf};
use crate::ui::{format, icon};
use kiops_events::view::UsageSample;
use kiops_events::{Marker, StepView};
use leptos::prelude::*;

#[component]
pub fn Steps(live: Live) -> impl IntoView {
    let count = Memo::new(move |_| live.view.with(|v| v.steps.len()));
    let waiting = Memo::new(move |_| live.view.with(|v| v.announced.clone()));
    // Marks and bars share one length, so that only one number changes while time goes by.
    let axis = Memo::new(move |_| format::axis(live.agent_now()));
    let length = move || {
        let (step, n) = axis.get();
        format!("--axis:{}", step * n)
    };
    let list = NodeRef::<leptos::html::Ol>::new();
    let worth_seeing = Memo::new(move |_| live.view.with(|v| worth_seeing(&v.steps)));
    // Where somebody looks at the list or has a step in focus, it stays as it is.
    Effect::new(move |_| {
        let (Some(index), Some(list)) = (worth_seeing.get(), list.get()) else { return };
        request_animation_frame(move || {
            if !list.matches(":hover, :focus-within").unwrap_or(true) {
                show_row(&list, index);
            }
        });
    });
    view! {
        <div class="steps" style=length>
            <div class="axis" aria-hidden="true">
                {move || {
                    let (step, n) = axis.get();
                    (0..=n)
                        .map(|i| {
                            view! { <span style=format!("--at:{}", i * step)>{format::mark(i * step)}</span> }
                        })
                        .collect_view()
                }}
            </div>
            <ol class="step-list" aria-label=t("steps.label") node_ref=list>
                <For each=move || 0..count.get() key=|i| *i let:i>
                    {step_row(live, i)}
                </For>
                {move || {
                    waiting
                        .get()
                        .into_iter()
                        .map(|(_, name)| {
                            view! {
                                <li class="step-item">
                                    <div class="step m-waiting">
                                        <span class="step-n"></span>
                                        <code class="step-name" title=name.clone()>{name.clone()}</code>
                                        <span class="step-time"></span>
                                        <span class="step-marker">{t("marker.waiting")}</span>
                                    </div>
                                </li>
                            }
                        })
                        .collect_view()
                }}
            </ol>
            {move || {
                (count.get() == 0 && waiting.with(Vec::is_empty))
                    .then(|| {
                        let text = move || t(if live.running() { "steps.empty" } else { "steps.none" });
                        view! { <p class="steps-empty quiet">{text}</p> }
                    })
            }}
            <Usage live=live/>
        </div>
    }
    .into_any()
}

/// The step that failed the build, else the last one that runs.
fn worth_seeing(steps: &[StepView]) -> Option<usize> {
    let failed = steps.iter().position(StepView::failed);
    failed.or_else(|| steps.iter().rposition(|s| s.marker == Marker::Running))
}

/// Scrolls the list alone, and only as far as it must.
fn show_row(list: &web_sys::HtmlElement, index: usize) {
    let Some(row) = list.children().item(index as u32) else { return };
    let (view, row) = (list.get_bounding_client_rect(), row.get_bounding_client_rect());
    let by = if row.top() < view.top() { row.top() - view.top() } else { (row.bottom() - view.bottom()).max(0.0) };
    if by != 0.0 {
        list.set_scroll_top(list.scroll_top() + by.round() as i32);
    }
}

/// Marker as class, icon and word.
fn marker(marker: Marker) -> (&'static str, &'static str, String) {
    match marker {
        Marker::Waiting => ("m-waiting", "queued", t("marker.waiting")),
        Marker::Running => ("m-running", "running", t("marker.running")),
        Marker::Done => ("m-done", "check", "DONE".to_owned()),
        Marker::Cached => ("m-cached", "cached", "CACHED".to_owned()),
        Marker::Error => ("m-error", "failure", "ERROR".to_owned()),
        Marker::Canceled => ("m-canceled", "cancelled", "CANCELED".to_owned()),
    }
}

fn step_row(live: Live, index: usize) -> AnyView {
    let step = Memo::new(move |_| live.view.with(|v| v.steps.get(index).cloned()));
    let with = move |f: fn(&StepView) -> String| step.with(|s| s.as_ref().map(f).unwrap_or_default());
    let kind = Memo::new(move |_| step.with(|s| s.as_ref().map_or(Marker::Waiting, |s| s.marker)));
    let goes_on =
        Memo::new(move |_| step.with(|s| s.as_ref().is_some_and(|s| s.marker == Marker::Error && !s.failed())));
    // Only a running step follows the clock.
    let time = move || {
        let now = if kind.get() == Marker::Running { live.agent_now() } else { 0 };
        step.with(|s| {
            s.as_ref()
                .and_then(|s| s.duration_ms(now))
                .map_or("–".to_owned(), |ms| format!("{}s", format::tenths(ms)))
        })
    };
    let bars = move || {
        step.with(|s| {
            let Some(s) = s else { return Vec::new() };
            let running = s.running_since_ms.filter(|_| s.marker == Marker::Running);
            let running = running.map(|start| (start, live.agent_now().max(start)));
            s.intervals
                .iter()
                .map(|i| (i.start_ms, i.end_ms))
                .chain(running)
                .map(|(start, end)| view! { <i style=format!("--s:{start};--d:{}", end - start)></i> })
                .collect()
        })
    };
    let transfer = move || {
        step.with(|s| {
            let s = s.as_ref()?;
            let (mut done, mut total) = (0u64, 0u64);
            s.transfers.iter().filter(|t| t.total > 0).for_each(|t| {
                done += if t.done { t.total } else { t.current.min(t.total) };
                total += t.total;
            });
            (total > 0 && s.marker == Marker::Running)
                .then(|| tf("steps.transfer", &[("done", &format::memory(done)), ("total", &format::memory(total))]))
        })
    };
    let row = move || step.with(|s| s.as_ref().map(|s| s.first_row).unwrap_or_default());
    let href = move || {
        live.build
            .with(|b| format!("/services/edit/{}?build=run&id={}&row={}", b.head.service_id, b.head.id, row() + 1))
    };
    // A second click on the same step changes no address, and leads there all the same.
    let go = move |event| {
        if plain_click(&event) {
            live.log.go_to(untrack(row));
        }
    };
    view! {
        <li class="step-item">
            <a
                class=move || format!("step {}", if goes_on.get() { "m-goes-on" } else { marker(kind.get()).0 })
                href=href
                on:click=go
            >
                <span class="step-n">{move || with(|s| format!("#{}", s.number))}</span>
                <code class="step-name" title=move || with(|s| s.name.clone())>{move || with(|s| s.name.clone())}</code>
                <span class="step-time">{time}</span>
                <span class="step-marker">
                    {move || {
                        let (_, name, word) = marker(kind.get());
                        view! { {icon(name)} {word} }
                    }}
                </span>
                <span class="step-transfer">
                    {move || if goes_on.get() { Some(t("steps.goes_on")) } else { transfer() }}
                </span>
                <span class="step-bars" aria-hidden="true">{bars}</span>
            </a>
        </li>
    }
    .into_any()
}

#[component]
fn Usage(live: Live) -> impl IntoView {
    let any = Memo::new(move |_| live.view.with(|v| !v.usage.is_empty()));
    move || {
        any.get().then(|| {
            view! {
                <div class="usage" aria-label=t("usage.label") role="group">
                    {meter(live, "usage.cpu", |s| f64::from(s.cpu_millicores), cores)}
                    {meter(live, "usage.memory", |s| s.memory_bytes as f64, |n| format::memory(n as u64))}
                    {meter(live, "usage.disk", |s| s.disk_bytes as f64, |n| format::memory(n as u64))}
                </div>
            }
        })
    }
}

fn cores(millicores: f64) -> String {
    let n = format::cores(millicores as u32);
    tf(if n == "1" { "usage.core" } else { "usage.cores" }, &[("n", &n)])
}

/// A figure with its course: now while it runs, the peak afterwards.
fn meter(live: Live, key: &'static str, of: fn(&UsageSample) -> f64, text: fn(f64) -> String) -> AnyView {
    let figure = move || {
        live.view.with(|v| {
            let peak = v.usage.iter().map(of).fold(0.0, f64::max);
            let now = v.usage.last().map(of).unwrap_or_default();
            (now, peak)
        })
    };
    let points = move || {
        live.view.with(|v| {
            let peak = v.usage.iter().map(of).fold(1.0, f64::max);
            let (first, last) = match (v.usage.first(), v.usage.last()) {
                (Some(a), Some(b)) => (a.t_ms, b.t_ms.max(a.t_ms + 1)),
                _ => (0, 1),
            };
            let mut out = String::new();
            for sample in &v.usage {
                let x = (sample.t_ms - first) * 100 / (last - first);
                let y = 23 - (of(sample) / peak * 22.0) as i64;
                out.push_str(&format!("{x},{y} "));
            }
            out
        })
    };
    let title = move || tf("usage.peak", &[("peak", &text(figure().1))]);
    view! {
        <div class="meter" title=title>
            <span class="meter-text">
                {t(key)}
                " "
                <strong>{move || { let (now, peak) = figure(); text(if live.running() { now } else { peak }) }}</strong>
            </span>
            <svg viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true" focusable="false">
                <polyline points=points></polyline>
            </svg>
        </div>
    }
    .into_any()
}
