//! The half of the page's program that not every page needs: what there is of one service, from its registration to its
//! builds, and the administrator's pages. It comes as a part of its own, so that signing in and the list of services are
//! ready sooner. The frame asks for it as soon as it runs: it is there when somebody chooses a service.

use crate::accounts::api::who_am_i;
use crate::check::CheckPage;
use crate::locales::t;
use crate::services::{AddService, ServicePage};
use crate::ui::{PageDialog, browser, notice};
use leptos::prelude::*;

/// Under this name the program is parted (scripts/build-web.sh).
#[cfg(feature = "ssr")]
const NAME: &str = "service";

struct NotThere;

type Drawn = Result<AnyView, NotThere>;

#[cfg(target_arch = "wasm32")]
impl From<leptos::wasm_split::SplitLoaderError> for NotThere {
    fn from(_: leptos::wasm_split::SplitLoaderError) -> Self {
        Self
    }
}

/// What can be drawn by the part.
#[derive(Clone, Copy)]
enum Piece {
    Page,
    Adding,
    Check,
}

// In a browser this becomes a function that waits for the part, and `load_part` beside it, which asks for it. One function:
// each such has a loader of its own.
#[cfg_attr(
    target_arch = "wasm32",
    leptos::wasm_split::wasm_split(service, wasm_split_path = leptos::wasm_split, fallible, preload(load_part))
)]
fn draw(piece: Piece) -> Drawn {
    Ok(match piece {
        Piece::Page => view! { <ServicePage/> }.into_any(),
        Piece::Adding => view! { <AddService/> }.into_any(),
        Piece::Check => view! { <CheckPage/> }.into_any(),
    })
}

#[cfg(target_arch = "wasm32")]
mod loading {
    use super::{Drawn, NotThere, load_part};
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, Waker};

    static THERE: AtomicBool = AtomicBool::new(false);

    pub fn there() -> bool {
        THERE.load(Ordering::Relaxed)
    }

    pub async fn load() -> Result<(), NotThere> {
        load_part().await?;
        THERE.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// What is drawn at once, as everything is when the part is there.
    pub fn now(drawn: impl Future<Output = Drawn>) -> Drawn {
        match pin!(drawn).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(drawn) => drawn,
            Poll::Pending => Err(NotThere),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod loading {
    use super::{Drawn, NotThere};

    pub fn there() -> bool {
        true
    }

    pub async fn load() -> Result<(), NotThere> {
        Ok(())
    }

    pub fn now(drawn: Drawn) -> Drawn {
        drawn
    }
}

/// Whether a page that the server has written can be taken over: what stands on it must be there.
pub async fn there_for(path: &str, query: &str) -> bool {
    !stands_on(path, query) || loading::load().await.is_ok()
}

fn stands_on(path: &str, query: &str) -> bool {
    let its_own = path.starts_with("/services/") || path.starts_with("/settings/");
    its_own || query.trim_start_matches('?').split('&').any(|pair| pair.starts_with("add="))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Coming,
    There,
    /// The server cannot be reached.
    CutOff,
    /// It can be, and has another program by now.
    Outdated,
}

/// How it stands with the part, for all that is in the frame.
#[derive(Clone, Copy)]
pub struct ServicePart(RwSignal<State>);

impl ServicePart {
    /// Asks for it when it is not there yet.
    pub fn provide() {
        let part = Self(RwSignal::new(if loading::there() { State::There } else { State::Coming }));
        Effect::new(move |_| part.load());
        provide_context(part);
    }

    fn load(self) {
        if loading::there() {
            return;
        }
        self.0.set(State::Coming);
        leptos::task::spawn_local(async move {
            let state = match loading::load().await {
                Ok(()) => State::There,
                Err(NotThere) if who_am_i().await.is_ok() => State::Outdated,
                Err(NotThere) => State::CutOff,
            };
            self.0.try_set(state);
        });
    }

    /// What the part draws; until it has come a word about that, in the same place.
    fn view(self, piece: Piece, place: fn(AnyView) -> AnyView) -> impl IntoView {
        #[cfg(feature = "ssr")]
        crate::call::needs_part(NAME);
        move || {
            let state = self.0.get();
            let drawn = if state == State::There { loading::now(draw(piece)) } else { Err(NotThere) };
            drawn.unwrap_or_else(|NotThere| place(self.word(state)))
        }
    }

    fn word(self, state: State) -> AnyView {
        match state {
            State::Coming => view! { <div class="skeleton-line"></div> }.into_any(),
            State::CutOff => view! {
                {notice("warning", "warning", t("problem.connection"))}
                <button type="button" class="button" on:click=move |_| self.load()>{t("run.try_again")}</button>
            }
            .into_any(),
            State::There | State::Outdated => view! {
                {notice("warning", "warning", t("part.outdated"))}
                <button type="button" class="button" on:click=|_| browser::reload()>{t("live.reload")}</button>
            }
            .into_any(),
        }
    }
}

/// The page of a service.
#[component]
pub fn ServiceRoute() -> impl IntoView {
    let part: ServicePart = expect_context();
    part.view(Piece::Page, in_page)
}

/// The page "Check".
#[component]
pub fn CheckRoute() -> impl IntoView {
    let part: ServicePart = expect_context();
    part.view(Piece::Check, in_page)
}

fn in_page(word: AnyView) -> AnyView {
    view! { <div class="page">{word}</div> }.into_any()
}

/// The dialog "Add service".
#[component]
pub fn Adding() -> impl IntoView {
    let part: ServicePart = expect_context();
    let dialog = |word| {
        let close = Signal::stored("/services".to_owned());
        view! {
            <PageDialog title=t("add.title") close=close class="add">
                <div class="sheet-body">{word}</div>
            </PageDialog>
        }
        .into_any()
    };
    part.view(Piece::Adding, dialog)
}

#[cfg(test)]
mod tests {
    use super::stands_on;

    #[test]
    fn what_comes_later_stands_on_its_own_pages_and_in_the_dialog() {
        for (path, query) in [
            ("/services/edit/svc-a", ""),
            ("/services/edit/svc-a", "?build=run"),
            ("/services", "?add=1"),
            ("/settings/check", ""),
        ] {
            assert!(stands_on(path, query), "{path}{query}");
        }
        for (path, query) in [("/", ""), ("/services", "?search=add"), ("/sign-in", "?next=/services%3Fadd%3D1")] {
            assert!(!stands_on(path, query), "{path}{query}");
        }
    }
}
