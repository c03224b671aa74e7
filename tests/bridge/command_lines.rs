//! Every command line in the pages, comments, messages and help texts is accepted by the program: each is parsed with
//! the real one. Those of the bridge itself also run, where that costs nothing: without a configuration.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
};

use clap::{Arg, ArgAction, Command, error::ErrorKind};
use footbridge_testbed::arguments::{command as testbed, without_second_dashes};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The code in a page: each span, and each line of a shell block.
fn of_page(markdown: &str) -> BTreeSet<String> {
    let (mut found, mut in_shell) = (BTreeSet::new(), false);
    for event in Parser::new(markdown) {
        match event {
            Event::Code(span) => {
                found.insert(span.split_whitespace().collect::<Vec<_>>().join(" "));
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                in_shell = &*language == "sh";
            }
            Event::End(TagEnd::CodeBlock) => in_shell = false,
            Event::Text(lines) if in_shell => {
                let lines = lines
                    .lines()
                    .map(|line| line.split(" #").next().unwrap_or(line));
                found.extend(lines.map(|line| line.trim().to_owned()));
            }
            _ => {}
        }
    }
    found
}

/// What is between backticks in a text that is no page: a comment, a message, a help text.
fn of_text(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|line| {
        let line = line.trim();
        let line = ["//!", "///", "//", "#"]
            .iter()
            .find_map(|mark| line.strip_prefix(mark))
            .unwrap_or(line);
        line.strip_suffix('\\').unwrap_or(line).trim()
    });
    let text = lines.collect::<Vec<_>>().join(" ");
    let mut found = BTreeSet::new();
    for begins in ["`footbridge ", "`cargo "] {
        for (at, _) in text.match_indices(begins) {
            let span = text[at + 1..].split('`').next().unwrap_or_default();
            found.insert(span.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    found
}

fn files(below: &str, ends: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ends) {
                found.push(path);
            }
        }
    }
    found
}

/// A value for a placeholder in a page.
fn filled(word: &str) -> String {
    let word = word.trim_matches(['\'', '[', ']']);
    match word {
        "SIZE" => "small".to_owned(),
        "SEED" | "ROUNDS" => "1".to_owned(),
        "ROW" => "F01".to_owned(),
        _ => word.replace(['{', '}', '<', '>'], "x"),
    }
}

fn command_line(line: &str) -> Vec<String> {
    let line = line.split(" — ").next().unwrap_or(line);
    line.split_whitespace().map(filled).collect()
}

/// Whether a program accepts these arguments. `--help` and `--version` count as accepted.
fn takes(program: &Command, arguments: &[String]) -> Result<(), String> {
    let line = std::iter::once(program.get_name().to_owned()).chain(arguments.iter().cloned());
    match program.clone().try_get_matches_from(line) {
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Whether this is only the name of a command, as pages mention one, without its arguments.
fn is_name(words: &[String]) -> bool {
    let mut command = footbridge::cli::command_line();
    for word in words {
        match command.find_subcommand(word) {
            Some(inner) => command = inner.clone(),
            None => return false,
        }
    }
    true
}

/// The subset of cargo that the pages use.
fn cargo() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let option = |name: &'static str| Arg::new(name).long(name);
    let rest = || Arg::new("rest").num_args(..).last(true);
    let package = Arg::new("package").short('p').required(true);
    let run = Command::new("run")
        .args([flag("quiet"), flag("release"), package])
        .arg(option("example"))
        // Everything after the first word that is not an option goes to the program.
        .arg(Arg::new("rest").num_args(..).trailing_var_arg(true));
    let fuzz = Command::new("run")
        .args(["fuzz-dir", "target-dir", "sanitizer", "codegen-units"].map(option))
        .args([Arg::new("target").required(true), rest()]);
    let install = Command::new("install")
        .args([option("path"), Arg::new("crate")])
        .arg_required_else_help(true);
    let fuzz = Command::new("fuzz")
        .subcommand(fuzz)
        .subcommand_required(true);
    Command::new("cargo")
        .subcommands([run, Command::new("test"), install, fuzz])
        .subcommand_required(true)
}

/// The words of an alias in `.cargo/config.toml`.
fn alias(name: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(root().join(".cargo/config.toml")).unwrap();
    let read: toml::Table = text.parse().unwrap();
    let alias = read["alias"].get(name)?.as_str()?;
    Some(alias.split_whitespace().map(ToOwned::to_owned).collect())
}

fn cargo_takes(line: &[String]) -> Result<(), String> {
    let line = match line.split_first() {
        Some((name, rest)) => [
            alias(name).unwrap_or_else(|| vec![name.clone()]),
            rest.to_vec(),
        ]
        .concat(),
        None => Vec::new(),
    };
    if cargo()
        .get_subcommands()
        .any(|command| line == [command.get_name()])
    {
        return Ok(());
    }
    takes(&cargo(), &line)?;
    let line = std::iter::once("cargo".to_owned()).chain(line);
    let read = cargo().get_matches_from(line);
    match read.subcommand() {
        Some(("run", run)) => {
            let text = |name: &str| run.get_one::<String>(name).map(String::as_str);
            if let Some(example) = text("example") {
                let file = format!("store/examples/{example}.rs");
                let is_there =
                    text("package") == Some("footbridge-store") && root().join(&file).exists();
                return is_there.then_some(()).ok_or(format!("no {file}"));
            }
            if text("package") != Some("footbridge-testbed") {
                return Err("another package".to_owned());
            }
            let arguments = run.get_many::<String>("rest").unwrap_or_default();
            let arguments: Vec<String> = arguments.cloned().collect();
            testbed_takes(arguments)
        }
        Some(("fuzz", fuzz)) => {
            let Some(("run", run)) = fuzz.subcommand() else {
                return Err("not run".to_owned());
            };
            let text = |name: &str| run.get_one::<String>(name).cloned().unwrap_or_default();
            let target = root()
                .join(text("fuzz-dir"))
                .join("targets")
                .join(text("target") + ".rs");
            target
                .exists()
                .then_some(())
                .ok_or(format!("no {}", target.display()))
        }
        _ => Ok(()),
    }
}

/// Whether the testbed takes these arguments.
fn testbed_takes(arguments: Vec<String>) -> Result<(), String> {
    let line = std::iter::once("testbed".to_owned()).chain(arguments);
    let line = without_second_dashes(line.map(OsString::from)).into_iter();
    let line: Vec<String> = line
        .skip(1)
        .map(|word| word.into_string().unwrap())
        .collect();
    takes(&testbed(), &line)
}

/// Whether any program or subcommand accepts this: pages mention options without repeating the command.
fn something_takes(arguments: &[String]) -> Result<(), String> {
    let bridge = footbridge::cli::command_line();
    let commands = bridge
        .get_subcommands()
        .map(|command| command.get_name().to_owned());
    let of_bridge =
        commands.map(|command| takes(&bridge, &[vec![command], arguments.to_vec()].concat()));
    let testbed = testbed();
    let programs = testbed
        .get_subcommands()
        .map(|command| command.get_name().to_owned());
    let of_others =
        programs.map(|program| testbed_takes([vec![program], arguments.to_vec()].concat()));
    let mut all = of_bridge.chain(of_others);
    all.any(|taken| taken.is_ok())
        .then_some(())
        .ok_or("nothing takes this".to_owned())
}

/// Whether a span or line is a command line, and if so, whether a program accepts it.
fn check(shown: &str) -> Option<Result<(), String>> {
    // `portal add|list|remove` stands for three command lines.
    if let Some(word) = command_line(shown)
        .into_iter()
        .find(|word| word.contains('|'))
    {
        let each = word.split('|').map(|one| check(&shown.replace(&word, one)));
        return each.flatten().find(Result::is_err).or(Some(Ok(())));
    }
    let line = command_line(shown);
    let (first, rest) = line.split_first()?;
    Some(match first.as_str() {
        "footbridge" if is_name(rest) => Ok(()),
        "footbridge" => takes(&footbridge::cli::command_line(), rest),
        "cargo" => cargo_takes(rest),
        "soak" => testbed_takes([vec!["faults".to_owned()], line].concat()),
        "testbed" => testbed_takes(rest.to_vec()),
        option if option.starts_with("--") => something_takes(&line),
        _ => return None,
    })
}

/// The pages for people.
const PAGES: [&str; 11] = [
    "README.md",
    "SECURITY.md",
    "src/README.md",
    "src/app/README.md",
    "src/app/control/README.md",
    "src/silo/gitter/README.md",
    "src/silo/matterbridge/README.md",
    "src/silo/mattermost/README.md",
    "store/README.md",
    "tests/fuzz/README.md",
    "tests/testbed/README.md",
];

/// All command lines, and the file in which each is shown.
fn shown() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for page in PAGES {
        let text = fs::read_to_string(root().join(page)).unwrap();
        all.extend(
            of_page(&text)
                .into_iter()
                .map(|line| (page.to_owned(), line)),
        );
    }
    let mut texts = vec![root().join("config.toml.example")];
    texts.extend(files("src", ".rs"));
    texts.extend(files("store", ".rs"));
    texts.extend(files("tests/testbed", ".rs"));
    texts.extend(files("tests/bridge/golden", ".txt"));
    for path in texts {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        all.extend(of_text(&text).into_iter().map(|line| (name.clone(), line)));
    }
    let mut commands = vec![footbridge::cli::command_line(), testbed()];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().cloned());
        let name = format!("the help of {}", command.get_name());
        let help = command.term_width(10_000).render_long_help().to_string();
        all.extend(of_text(&help).into_iter().map(|line| (name.clone(), line)));
    }
    all
}

#[test]
fn every_command_line_that_is_shown_is_taken() {
    let (mut checked, mut wrong) = (0, Vec::new());
    for (file, line) in shown() {
        if let Some(taken) = check(&line) {
            checked += 1;
            if let Err(why) = taken {
                wrong.push(format!("{file}: {line}\n{why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(checked >= 80, "only {checked} were found");
}

/// The test above can fail.
#[test]
fn a_command_line_that_is_not_taken_is_noticed() {
    for line in [
        "footbridge rnu",
        "footbridge check --of-line",
        "footbridge portal add ROOM",
        "cargo demo -- --staying",
        "cargo demo",
        "cargo run -p footbridge-testbed -- fault",
        "cargo run -p footbridge-testbed -- faults --sizes small",
        "cargo run -p footbridge-testbed -- faults F01 --size middling",
        "cargo run --release -p footbridge-store --example paces",
        "cargo fuzz run --fuzz-dir tests/fuzz framers",
        "testbed many --portal 20",
        "--only crowds",
        "soak --minute 3",
    ] {
        let taken = check(line).unwrap();
        assert_eq!(taken.is_ok(), line == "cargo demo", "{line}: {taken:?}");
    }
    assert_eq!(check("hello there"), None);
}

#[test]
fn the_demo_takes_its_options_with_dashes_in_front_and_without() {
    for line in ["cargo demo --stay", "cargo demo -- --stay", "cargo demo"] {
        assert_eq!(check(line), Some(Ok(())), "{line}");
    }
}

/// Without a setup each command says what is missing, and none reports wrong arguments.
#[test]
fn the_commands_of_the_pages_run() {
    let lines: BTreeSet<String> = PAGES
        .into_iter()
        .flat_map(|page| of_page(&fs::read_to_string(root().join(page)).unwrap()))
        .collect();
    let mut run = 0;
    for line in lines {
        let Some(arguments) = line.strip_prefix("footbridge ") else {
            continue;
        };
        let is_whole = takes(&footbridge::cli::command_line(), &command_line(arguments)).is_ok();
        if !is_whole && is_name(&command_line(arguments)) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let output = Process::new(env!("CARGO_BIN_EXE_footbridge"))
            .args(command_line(arguments))
            .current_dir(directory.path())
            .env_remove("FOOTBRIDGE_CONFIG")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!told.contains("Usage:"), "{line}: {told}");
        let ends_well = line == "footbridge silos";
        assert_eq!(output.status.success(), ends_well, "{line}: {told}");
        run += 1;
    }
    assert!(run >= 12, "only {run} were run");
}
