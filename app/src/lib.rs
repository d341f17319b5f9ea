//! The contract between pages and server, the model, and the screens. One folder a feature.
//!
//! Compiled for the server (feature `ssr`) and for the browser (feature `hydrate`). What never enters: SQL, Kubernetes,
//! processes, file paths, permission checks, business decisions.

#![recursion_limit = "256"]

mod accounts;
#[cfg(feature = "ssr")]
pub mod backend;
mod builds;
pub mod call;
mod check;
pub mod error;
mod frame;
mod loaded;
pub mod locales;
pub mod model;
mod part;
mod services;
mod ui;

pub use ui::format;

use accounts::{SetPasswordPage, SignInPage};
use frame::{Frame, NotFoundPage};
use leptos::prelude::*;
use leptos_meta::provide_meta_context;
use leptos_router::components::{ParentRoute, Redirect, Route, Router, Routes};
use leptos_router::{SsrMode, path};
use part::{CheckRoute, ServiceRoute};
use services::ServicesPage;

/// Whether the page that stands in the browser can be taken over: all parts of the program that it needs are loaded.
pub async fn parts_are_there() -> bool {
    let (path, query) = ui::browser::path_and_query();
    part::there_for(&path, &query).await
}

/// The document around the pages.
#[cfg(feature = "ssr")]
pub fn shell(options: LeptosOptions) -> impl IntoView {
    use leptos_meta::{HashedStylesheet, MetaTags};
    let lang = locales::current();
    provide_context(lang);
    view! {
        <!DOCTYPE html>
        <html lang=lang.code() data-theme=frame::theme_of_request()>
            <head>
                <meta charset="utf-8"/>
                <meta name="viewport" content="width=device-width, initial-scale=1"/>
                <link rel="icon" type="image/svg+xml" href="/favicon.svg"/>
                <link rel="preload" href="/fonts/inter.woff2" r#as="font" r#type="font/woff2" crossorigin="anonymous"/>
                <HashedStylesheet id="style" options=options.clone()/>
                <HydrationScripts options/>
                <script id=locales::TEXTS_ELEMENT type="application/json" inner_html=locales::texts_script(lang)></script>
                <MetaTags/>
            </head>
            <body>
                <App/>
            </body>
        </html>
    }
}

#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    #[cfg(feature = "ssr")]
    {
        provide_context(locales::current());
        provide_context(builds::OneMoment::default());
    }
    frame::hear_the_way_back();
    // Tests and people's scripts wait for this before the first click.
    Effect::new(|_| {
        if let Some(root) = ui::browser::root_element() {
            let _ = root.set_attribute("data-hydrated", "");
        }
    });
    view! {
        <Router>
            <Routes fallback=NotFoundPage>
                <Route path=path!("/") view=|| view! { <Redirect path="/services"/> } ssr=SsrMode::Async/>
                <Route path=path!("/sign-in") view=SignInPage ssr=SsrMode::Async/>
                <Route path=path!("/setup/:link") view=SetPasswordPage ssr=SsrMode::Async/>
                <ParentRoute path=path!("") view=Frame ssr=SsrMode::Async>
                    <Route path=path!("/services") view=ServicesPage ssr=SsrMode::Async/>
                    <Route path=path!("/services/new") view=|| view! { <Redirect path="/services?add=1"/> } ssr=SsrMode::Async/>
                    <Route path=path!("/services/edit/:id") view=ServiceRoute ssr=SsrMode::Async/>
                    <Route path=path!("/settings/check") view=CheckRoute ssr=SsrMode::Async/>
                </ParentRoute>
            </Routes>
        </Router>
    }
}
