//! Forms that are posted to a server function: its address with the fields as they stand in the form. Before the page's
//! program has loaded the browser sends them by itself; later the program does, and the page stays where it is.

use crate::error::Problem;
use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::server_fn::ServerFn;
use serde::de::DeserializeOwned;
use std::sync::Arc;

type Heard = Arc<dyn Fn(&[u8]) -> Result<(), Problem> + Send + Sync>;

/// One form's way to its server function, and what the last answer was. All that differs from form to form is what is
/// done with an answer, so that the rest is in the page's program once.
#[derive(Clone, Copy)]
pub struct Post {
    url: &'static str,
    pending: RwSignal<bool>,
    said: RwSignal<Option<Result<(), Problem>>>,
    #[cfg_attr(not(feature = "hydrate"), expect(dead_code, reason = "only a browser gets answers"))]
    heard: StoredValue<Heard>,
}

impl Post {
    /// `done` is given what a call that worked gave; a redirect of the server's is followed after it.
    pub fn to<F>(done: impl Fn(F::Output) + Send + Sync + 'static) -> Self
    where
        F: ServerFn<Error = Problem>,
        F::Output: DeserializeOwned,
    {
        let heard = move |answer: &[u8]| {
            serde_json::from_slice(answer).map(&done).map_err(|e| {
                use leptos::server_fn::error::{FromServerFnError, ServerFnErrorErr};
                Problem::from_server_fn_error(ServerFnErrorErr::Deserialization(e.to_string()))
            })
        };
        Self {
            url: F::url(),
            pending: RwSignal::new(false),
            said: RwSignal::new(None),
            heard: StoredValue::new(Arc::new(heard)),
        }
    }

    pub fn pending(self) -> bool {
        self.pending.get()
    }

    /// How the last call went; none before the first.
    pub fn said(self) -> Option<Result<(), Problem>> {
        self.said.get()
    }

    /// As if nothing had been sent.
    pub fn forget(self) {
        self.said.set(None);
    }

    fn submit(self, event: &SubmitEvent) {
        if event.default_prevented() {
            return;
        }
        event.prevent_default();
        // A key that is held down is one wish.
        if !self.pending.get_untracked() {
            self.send(event);
        }
    }

    #[cfg(not(feature = "hydrate"))]
    fn send(self, _: &SubmitEvent) {}

    #[cfg(feature = "hydrate")]
    fn send(self, event: &SubmitEvent) {
        let Some(fields) = sending::fields(event) else { return };
        self.pending.set(true);
        leptos::task::spawn_local(async move {
            let answer = sending::post(self.url, &fields).await;
            // Whoever asked may have gone meanwhile.
            let Some(heard) = self.heard.try_get_value() else { return };
            let (said, way) = match answer {
                Ok((answer, way)) => (heard(&answer), way),
                Err(problem) => (Err(problem), None),
            };
            self.pending.try_set(false);
            self.said.try_set(Some(said));
            if let Some(way) = way {
                server_fn::redirect::call_redirect_hook(&way);
            }
        });
    }
}

#[cfg(feature = "hydrate")]
mod sending {
    use crate::error::Problem;
    use gloo_net::http::{Request, Response};
    use leptos::ev::SubmitEvent;
    use leptos::server_fn::error::{FromServerFnError, ServerFnErrorErr};
    use leptos::server_fn::redirect::REDIRECT_HEADER;
    use leptos::wasm_bindgen::JsCast;
    use web_sys::{FormData, HtmlFormElement, UrlSearchParams};

    /// As the browser would write them.
    pub fn fields(event: &SubmitEvent) -> Option<UrlSearchParams> {
        let form: HtmlFormElement = event.target()?.dyn_into().ok()?;
        let fields = FormData::new_with_form(&form).ok()?;
        UrlSearchParams::new_with_str_sequence_sequence(&fields).ok()
    }

    /// The answer, and where the server leads.
    pub async fn post(url: &str, fields: &UrlSearchParams) -> Result<(Vec<u8>, Option<String>), Problem> {
        let unsent = |e: gloo_net::Error| Problem::from_server_fn_error(ServerFnErrorErr::Request(e.to_string()));
        let request = Request::post(url).header("Accept", "application/json").body(fields.clone()).map_err(unsent)?;
        let response = request.send().await.map_err(unsent)?;
        let answer = response.binary().await.map_err(unsent)?;
        if response.ok() { Ok((answer, way(&response))) } else { Err(Problem::de(answer.into())) }
    }

    fn way(response: &Response) -> Option<String> {
        response.headers().get(REDIRECT_HEADER).and_then(|_| response.headers().get("Location"))
    }
}

#[component]
pub fn PostForm(post: Post, children: Children) -> impl IntoView {
    view! {
        <form action=post.url method="post" on:submit=move |event| post.submit(&event)>
            {children()}
        </form>
    }
}
