//! The live stream of a build: opened after the last position that was seen, opened again when it breaks, closed while
//! nobody looks.

use crate::error::{Problem, ProblemStatus};
use crate::model::{BuildId, LiveMessage};
#[cfg(feature = "hydrate")]
use leptos::prelude::Effect;

/// How the stream stands.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "hydrate"), allow(dead_code))]
pub enum Line {
    Up,
    /// It is opened again.
    Down,
    /// It is not: opening it again would not help.
    Lost(Lost),
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "hydrate"), allow(dead_code))]
pub enum Lost {
    /// Nobody is signed in any more.
    SignedOut,
    /// There is no such build, or it may not be seen any more.
    Gone,
    /// The server speaks in a way that this page does not know.
    Outdated,
}

/// Whether a refusal is one for good. A server that is away or busy is asked again, and so is whatever answers in its
/// place and in another form.
#[cfg_attr(not(feature = "hydrate"), allow(dead_code))]
fn lost_by(problem: &Problem) -> Option<Lost> {
    match problem.status {
        ProblemStatus::Unauthenticated => Some(Lost::SignedOut),
        ProblemStatus::NotFound | ProblemStatus::Forbidden => Some(Lost::Gone),
        _ => None,
    }
}

/// Follows a build until it has ended or the owner is gone, once it is `wanted`. `after` is asked at each (re)opening.
#[cfg_attr(not(feature = "hydrate"), allow(unused_variables))]
pub fn follow(
    id: BuildId,
    wanted: impl Fn() -> bool + 'static,
    after: impl Fn() -> u64 + 'static,
    on_message: impl Fn(LiveMessage) + 'static,
    on_line: impl Fn(Line) + 'static,
) {
    #[cfg(feature = "hydrate")]
    Effect::new({
        let parts = std::cell::Cell::new(Some((after, on_message, on_line)));
        move |_| {
            if wanted()
                && let Some((after, on_message, on_line)) = parts.take()
            {
                in_browser::start(id.clone(), Box::new(after), Box::new(on_message), Box::new(on_line));
            }
        }
    });
}

/// After so many attempts in a row the server is asked by another way: a browser does not tell why a stream was refused.
#[cfg_attr(not(feature = "hydrate"), allow(dead_code))]
const ASK_AFTER: u32 = 2;

/// Waits between attempts to reopen, in milliseconds.
#[cfg_attr(not(feature = "hydrate"), allow(dead_code))]
fn wait_ms(failures: u32) -> u64 {
    (500u64 << failures.min(8)).min(5_000)
}

#[cfg(feature = "hydrate")]
mod in_browser {
    use super::{ASK_AFTER, Line, Lost, lost_by, wait_ms};
    use crate::builds::api::get_snapshot;
    use crate::model::{BuildId, LiveMessage};
    use crate::ui::browser::page_hidden;
    use leptos::ev;
    use leptos::leptos_dom::helpers::document;
    use leptos::prelude::*;
    use leptos::task::spawn_local;
    use leptos::wasm_bindgen::JsCast;
    use leptos::wasm_bindgen::closure::Closure;
    use send_wrapper::SendWrapper;
    use std::cell::{Cell, RefCell};
    use std::rc::{Rc, Weak};
    use std::time::Duration;
    use web_sys::{Event, EventSource, MessageEvent};

    /// The server says something at least every 10 s (`server/src/http/live.rs`). A stream that is silent for so long is
    /// broken, whatever the browser thinks.
    const SILENCE_MS: f64 = 25_000.0;

    type Hear<E> = Closure<dyn Fn(E)>;
    /// Kept as long as the stream that calls them: message, end, beat, error.
    type Hears = (Hear<MessageEvent>, Hear<Event>, Hear<Event>, Hear<Event>);

    struct Link {
        id: BuildId,
        after: Box<dyn Fn() -> u64>,
        on_message: Box<dyn Fn(LiveMessage)>,
        on_line: Box<dyn Fn(Line)>,
        source: RefCell<Option<EventSource>>,
        hears: RefCell<Option<Hears>>,
        failures: Cell<u32>,
        timer: Cell<Option<TimeoutHandle>>,
        ended: Cell<bool>,
        /// Something has come since the stream was opened.
        spoke: Cell<bool>,
        heard_ms: Cell<f64>,
    }

    impl Link {
        fn open(self: &Rc<Self>) {
            self.close();
            if self.ended.get() || page_hidden() {
                return;
            }
            let url = format!("/builds/{}/live?after={}", self.id, (self.after)());
            let Ok(source) = EventSource::new(&url) else { return self.broke() };
            if let Some((message, end, beat, error)) = &*self.hears.borrow() {
                let add = |name: &str, hear: &leptos::wasm_bindgen::JsValue| {
                    let _ = source.add_event_listener_with_callback(name, hear.unchecked_ref());
                };
                add("message", message.as_ref());
                add("end", end.as_ref());
                add("beat", beat.as_ref());
                add("error", error.as_ref());
            }
            self.heard();
            self.spoke.set(false);
            *self.source.borrow_mut() = Some(source);
        }

        fn end(&self, line: Line) {
            self.ended.set(true);
            self.close();
            (self.on_line)(line);
        }

        fn close(&self) {
            if let Some(timer) = self.timer.take() {
                timer.clear();
            }
            if let Some(source) = self.source.take() {
                source.close();
            }
        }

        fn heard(&self) {
            self.heard_ms.set(crate::ui::browser::monotonic_ms());
        }

        fn broke(self: &Rc<Self>) {
            self.close();
            if self.ended.get() || page_hidden() {
                return;
            }
            (self.on_line)(Line::Down);
            let failures = self.failures.get();
            self.failures.set(failures + 1);
            if failures >= ASK_AFTER {
                self.ask();
            }
            let weak = Rc::downgrade(self);
            let again = move || {
                if let Some(link) = weak.upgrade() {
                    link.open();
                }
            };
            self.timer.set(set_timeout_with_handle(again, Duration::from_millis(wait_ms(failures))).ok());
        }

        /// How the build stands, without the stream; or why there is none.
        fn ask(self: &Rc<Self>) {
            let (id, weak) = (self.id.clone(), Rc::downgrade(self));
            spawn_local(async move {
                let answer = get_snapshot(id, None).await;
                let Some(link) = weak.upgrade().filter(|link| !link.ended.get() && !link.spoke.get()) else { return };
                match answer {
                    Ok(snapshot) if snapshot.view.pos >= (link.after)() => {
                        let over = snapshot.build.head.status.is_final();
                        (link.on_message)(LiveMessage::Snapshot(Box::new(snapshot)));
                        if over {
                            link.end(Line::Up);
                        }
                    }
                    Ok(_) => {}
                    Err(problem) => {
                        if let Some(why) = lost_by(&problem) {
                            link.end(Line::Lost(why));
                        }
                    }
                }
            });
        }

        fn message(&self, event: &MessageEvent) {
            self.heard();
            let Some(text) = event.data().as_string() else { return };
            match LiveMessage::read(text.as_bytes()) {
                Ok(message) => {
                    self.failures.set(0);
                    self.spoke.set(true);
                    (self.on_line)(Line::Up);
                    (self.on_message)(message);
                }
                Err(_) => self.end(Line::Lost(Lost::Outdated)),
            }
        }
    }

    fn hear<E: leptos::wasm_bindgen::convert::FromWasmAbi + 'static>(
        weak: &Weak<Link>,
        act: impl Fn(&Rc<Link>, E) + 'static,
    ) -> Hear<E> {
        let weak = weak.clone();
        Closure::new(move |event: E| {
            if let Some(link) = weak.upgrade() {
                act(&link, event);
            }
        })
    }

    pub fn start(
        id: BuildId,
        after: Box<dyn Fn() -> u64>,
        on_message: Box<dyn Fn(LiveMessage)>,
        on_line: Box<dyn Fn(Line)>,
    ) {
        let link = Rc::new(Link {
            id,
            after,
            on_message,
            on_line,
            source: RefCell::new(None),
            hears: RefCell::new(None),
            failures: Cell::new(0),
            timer: Cell::new(None),
            ended: Cell::new(false),
            spoke: Cell::new(false),
            heard_ms: Cell::new(0.0),
        });
        let weak = Rc::downgrade(&link);
        *link.hears.borrow_mut() = Some((
            hear(&weak, |link, event: MessageEvent| link.message(&event)),
            hear(&weak, |link, _: Event| {
                link.ended.set(true);
                link.close();
            }),
            hear(&weak, |link, _: Event| link.heard()),
            hear(&weak, |link, _: Event| link.broke()),
        ));
        link.open();

        let shown = {
            let weak = weak.clone();
            let hear = Closure::<dyn Fn()>::new(move || {
                if let Some(link) = weak.upgrade() {
                    if page_hidden() { link.close() } else { link.open() }
                }
            });
            let _ = document().add_event_listener_with_callback("visibilitychange", hear.as_ref().unchecked_ref());
            hear
        };
        let online = {
            let weak = weak.clone();
            window_event_listener(ev::online, move |_| {
                if let Some(link) = weak.upgrade() {
                    link.open();
                }
            })
        };
        let offline = {
            let weak = weak.clone();
            window_event_listener(ev::offline, move |_| {
                if let Some(link) = weak.upgrade() {
                    link.broke();
                }
            })
        };
        let watch = set_interval_with_handle(
            move || {
                if let Some(link) = weak.upgrade()
                    && link.source.borrow().is_some()
                    && crate::ui::browser::monotonic_ms() - link.heard_ms.get() > SILENCE_MS
                {
                    link.broke();
                }
            },
            Duration::from_secs(5),
        );
        let held = SendWrapper::new((link, shown));
        on_cleanup(move || {
            held.0.ended.set(true);
            held.0.close();
            let _ = document().remove_event_listener_with_callback("visibilitychange", held.1.as_ref().unchecked_ref());
            online.remove();
            offline.remove();
            if let Ok(watch) = watch {
                watch.clear();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_refusals_are_for_good() {
        assert!(matches!(lost_by(&Problem::unauthenticated()), Some(Lost::SignedOut)));
        assert!(matches!(lost_by(&Problem::not_found()), Some(Lost::Gone)));
        for code in ["connection", "unavailable", "outdated"] {
            assert!(lost_by(&Problem::new(ProblemStatus::Unavailable, code)).is_none(), "{code}");
        }
    }

    #[test]
    fn waits_grow_to_five_seconds() {
        assert_eq!([0, 1, 2, 3, 4, 99].map(wait_ms), [500, 1_000, 2_000, 4_000, 5_000, 5_000]);
    }
}
