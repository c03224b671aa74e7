//! Rules that the compiler does not check: who may import whom within a package, how long a file may be, and that the
//! map in `src/README.md` matches the files.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap()
        .to_string_lossy()
        .replace('\\', "/")
}

/// The code of a file without its tests and comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let before_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    before_tests
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        // What is in quotes is no code: log targets name other crates.
        .map(|line| line.split('"').step_by(2).collect::<String>())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The layer of a file within its package, by the module below the package's root; imports point to the same layer or
/// down. Between packages the compiler checks the imports.
fn floor(package: &str, module: &str) -> Option<usize> {
    let floors: &[&[&str]] = match package {
        "core" => &[
            &[],
            &[
                "inbox",
                "outlet",
                "capabilities",
                "render",
                "plan",
                "media_fetcher",
                "reactions",
            ],
            &["lane"],
        ],
        "app" => &[
            &["admin", "media_gateway", "control"],
            &["config"],
            &["bridge", "shutdown"],
            &["main", "mod", "cli", "fuzz"],
        ],
        _ => return None,
    };
    let found = floors.iter().position(|floor| floor.contains(&module));
    // A module of core that is not listed is in the lowest layer.
    found.or((package == "core").then_some(0))
}

/// The modules of the same crate that a file's code names: `crate::x` and the heads of `use crate::{x, y::…}`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for after in code.split("crate::").skip(1) {
        if let Some(group) = after.strip_prefix('{') {
            let (mut depth, mut word) = (0_u8, String::new());
            for character in group.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => found.push(std::mem::take(&mut word)),
                    _ if depth == 0 => word.push(character),
                    _ => {}
                }
            }
            found.push(word);
        } else {
            found.push(
                after
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect(),
            );
        }
    }
    found
        .into_iter()
        .map(|path| {
            path.trim()
                .split("::")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned()
        })
        .filter(|head| !head.is_empty())
        .collect()
}

#[test]
fn arrows_only_point_down() {
    let mut wrong = Vec::new();
    for path in sources(&root().join("src")) {
        let file = relative(&path);
        let mut parts = file.trim_start_matches("src/").split(['/', '.']);
        let (package, module) = (parts.next().unwrap(), parts.next().unwrap());
        let Some(here) = floor(package, module) else {
            continue;
        };
        for import in imports(&code(&path)) {
            if floor(package, &import).is_some_and(|floor| floor > here) && module != "mod" {
                wrong.push(format!(
                    "{file} imports {import}, which is in a higher layer"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_people_and_machines_ask_is_answered_without_knowing_a_network() {
    let mut wrong = Vec::new();
    for path in sources(&root().join("src/app")) {
        let (file, code) = (relative(&path), code(&path));
        let asked = ["admin", "media_gateway", "control"];
        if !asked
            .iter()
            .any(|room| file.starts_with(&format!("src/app/{room}")))
        {
            continue;
        }
        for network in ["footbridge_matrix", "footbridge_silo"] {
            if code.contains(network) {
                wrong.push(format!("{file} imports {network}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_matrix_side_touches_the_sdk_and_only_the_store_touches_sql() {
    let mut wrong = Vec::new();
    for path in sources(&root().join("src")) {
        let (file, code) = (relative(&path), code(&path));
        // Encrypting a file awaits nothing of the SDK.
        let code_but = if file == "src/core/spool.rs" {
            code.replace("matrix_sdk_crypto", "")
        } else {
            code.clone()
        };
        if code_but.contains("matrix_sdk") && !file.starts_with("src/matrix/") {
            wrong.push(format!("{file} touches matrix_sdk"));
        }
        if code.contains("rusqlite") {
            wrong.push(format!("{file} touches SQL"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Tests too: what they show about redirects, they show for the clients that are shipped.
#[test]
fn b16_http_clients_are_built_in_one_place_and_follow_no_redirect() {
    let mut wrong = Vec::new();
    for path in sources(&root().join("src")) {
        let (file, text) = (relative(&path), fs::read_to_string(&path).unwrap());
        let ways = [
            "reqwest::get(",
            "reqwest::Client::builder",
            "reqwest::Client::new",
            "reqwest::blocking",
            "ClientBuilder",
            "redirect::Policy",
        ];
        let mut builds = ways.iter().any(|way| text.contains(way));
        let imported = text.split("use reqwest::").skip(1);
        builds |= imported
            .filter_map(|import| import.split(';').next())
            .any(|import| import.contains("Client"))
            && (text.contains("Client::builder(") || text.contains("Client::new("));
        if builds && file != "src/core/http_client.rs" {
            wrong.push(format!("{file} builds its own HTTP client"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let home = fs::read_to_string(root().join("src/core/http_client.rs")).unwrap();
    assert_eq!(home.matches("Client::builder()").count(), 1);
    assert_eq!(home.matches(".redirect(Policy::none())").count(), 1);
}

#[test]
fn no_file_outgrows_its_room() {
    let mut wrong = Vec::new();
    for below in ["src", "store/src"] {
        for path in sources(&root().join(below)) {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap()
                .lines()
                .count();
            let file = relative(&path);
            if lines > 450 && !file.ends_with("_tests.rs") {
                wrong.push(format!("{file}: {lines} lines"));
            }
            if !text.starts_with("//!") {
                wrong.push(format!("{file} does not say what it is for"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_map_shows_every_module_of_core_and_app() {
    let map = fs::read_to_string(root().join("src/README.md")).unwrap();
    let mut missing = Vec::new();
    for package in ["core", "app"] {
        for entry in fs::read_dir(root().join("src").join(package)).unwrap() {
            let entry = entry.unwrap();
            let mut name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                name.push('/');
            }
            let is_head = ["mod.rs", "Cargo.toml"].contains(&name.as_str());
            if !is_head && !map.contains(&format!(" {name}")) {
                missing.push(format!("{package}/{name}"));
            }
        }
    }
    assert!(missing.is_empty(), "the map lacks {missing:?}");
}

/// The files that every kind of silo has.
const SILO_FILES: [&str; 10] = [
    "mod.rs",
    "config.rs",
    "capabilities.rs",
    "api.rs",
    "client.rs",
    "errors.rs",
    "arrival.rs",
    "feed.rs",
    "plans.txt",
    "README.md",
];

#[test]
fn every_silo_is_a_folder_of_the_same_files() {
    for kind in footbridge_silo::KINDS {
        let folder = root().join("src/silo").join(kind.word);
        let missing: Vec<_> = SILO_FILES
            .iter()
            .filter(|file| !folder.join(file).exists())
            .collect();
        assert!(missing.is_empty(), "silo/{} lacks {missing:?}", kind.word);
    }
}

#[test]
fn c28_no_statement_is_made_of_anything_but_constants() {
    let mut wrong = Vec::new();
    for path in sources(&root().join("store/src")) {
        let text = fs::read_to_string(&path).unwrap();
        for call in [
            "prepare",
            "prepare_cached",
            "execute",
            "execute_batch",
            "query_row",
        ] {
            for (at, _) in text.match_indices(&format!("{call}(&format!(")) {
                let statement = text[at..].split("))").next().unwrap();
                let holes = statement.split('{').skip(1);
                for hole in holes.filter_map(|hole| hole.split('}').next()) {
                    // Only values that the compiler knows are inserted: constants, and literals at every call.
                    let literal = ["retryable", "update", "condition"].contains(&hole);
                    let constant = !hole.is_empty() && !hole.chars().any(char::is_lowercase);
                    if !literal && !constant {
                        wrong.push(format!("{}: {{{hole}}}", relative(&path)));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn b17_no_body_of_an_answer_is_read_without_a_limit() {
    let mut wrong = Vec::new();
    for path in sources(&root().join("src")) {
        let file = relative(&path);
        let code = code(&path).replace(char::is_whitespace, "");
        let ways = [
            ".json().await",
            ".json::<",
            ".text().await",
            ".bytes().await",
            ".bytes_stream()",
        ];
        for way in ways.into_iter().filter(|way| code.contains(way)) {
            // The spool has its own limit.
            let spooled = way == ".bytes_stream()" && code.contains("spool.seal(");
            if !spooled && file != "src/core/bounded.rs" {
                wrong.push(format!("{file}: {way}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
