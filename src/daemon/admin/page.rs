//! The page: its files are part of the program.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::refusal::refusal;

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($name:literal $kind:expr),+ $(,)?) => {
        /// (name, media type, content) of all that `index.html` asks for.
        const FILES: &[(&str, &str, &str)] = &[$(($name, $kind, include_str!(concat!("page/", $name)))),+];
    };
}

files! {
    "style.css" "text/css; charset=utf-8",
    "icon.svg" "image/svg+xml",
    "main.js" JAVASCRIPT,
    "api.js" JAVASCRIPT,
    "dom.js" JAVASCRIPT,
    "format.js" JAVASCRIPT,
    "scale.js" JAVASCRIPT,
    "chart.js" JAVASCRIPT,
    "curves.js" JAVASCRIPT,
    "facts.js" JAVASCRIPT,
    "pipeline.js" JAVASCRIPT,
    "events.js" JAVASCRIPT,
    "pictures.js" JAVASCRIPT,
    "config.js" JAVASCRIPT,
    "actions.js" JAVASCRIPT,
    "editor.js" JAVASCRIPT,
    "reports.js" JAVASCRIPT,
    "diff.js" JAVASCRIPT,
}

pub(super) async fn index() -> Html<&'static str> {
    Html(include_str!("page/index.html"))
}

pub(super) async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(known, _, _)| *known == name) {
        Some((_, kind, content)) => ([(header::CONTENT_TYPE, *kind)], *content).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "the page has no such file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_served_and_none_asks_for_another_host() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/daemon/admin/page");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut served: Vec<String> = FILES
            .iter()
            .map(|(name, _, _)| (*name).to_owned())
            .chain(["index.html".into()])
            .collect();
        there.sort();
        served.sort();
        assert_eq!(served, there);
        for (name, _, text) in FILES.iter().copied().chain([("index.html", "", include_str!("page/index.html"))]) {
            // The names of SVG's elements are no address that anybody asks for.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for outside in [
                "http://",
                "https://",
                "\"//",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "style=\"",
                "onclick=",
            ] {
                assert!(!text.contains(outside), "{name}: {outside}");
            }
        }
    }
}
