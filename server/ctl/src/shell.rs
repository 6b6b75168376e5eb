//! The shell: commands line by line, with the same grammar. Without a terminal it reads lines as they come.

use std::io::{self, BufRead, Read, Write};

use crate::commands;
use crate::connection::Connection;
use crate::editor::{Editor, Step};
use crate::grammar;
use crate::terminal::{Raw, is_interactive};
use crate::words::Words;

const PROMPT: &str = "rladmin> ";

pub fn run(connection: &Connection) -> anyhow::Result<()> {
    if !is_interactive() {
        return read_lines(connection);
    }
    let mut editor = Editor::default();
    while let Some(line) = edit(&mut editor)? {
        if !obey(connection, &line) {
            break;
        }
    }
    Ok(())
}

/// Commands from a file or a pipe. The first that fails ends it.
fn read_lines(connection: &Connection) -> anyhow::Result<()> {
    for line in io::stdin().lock().lines() {
        let words = Words::of_line(&line?)?;
        match words.first().map(String::as_str) {
            None => {}
            Some("exit" | "quit") => break,
            Some(_) => commands::run(connection, words)?,
        }
    }
    Ok(())
}

/// Runs a line. Returns whether there are to be more.
fn obey(connection: &Connection, line: &str) -> bool {
    let words = match Words::of_line(line) {
        Ok(words) => words,
        Err(error) => {
            eprintln!("ERROR: {error:#}");
            return true;
        }
    };
    if words.first().is_some_and(|word| word == "exit" || word == "quit") {
        return false;
    }
    if let Err(error) = commands::run(connection, words) {
        eprintln!("ERROR: {error:#}");
    }
    true
}

/// One line from the keyboard; none at its end.
fn edit(editor: &mut Editor) -> io::Result<Option<String>> {
    let _raw = Raw::new()?;
    show(editor)?;
    for byte in io::stdin().lock().bytes() {
        match editor.byte(byte?, grammar::complete) {
            Step::Show => show(editor)?,
            Step::Enter(line) => {
                println!();
                return Ok(Some(line));
            }
            Step::Choices(choices) => {
                println!("\n{}", choices.join("  "));
                show(editor)?;
            }
            Step::Cancel => {
                println!();
                show(editor)?;
            }
            Step::End => {
                println!();
                return Ok(None);
            }
        }
    }
    Ok(None)
}

/// Writes the line over what was there, and puts the cursor where it is.
fn show(editor: &Editor) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "\r{PROMPT}{}\x1b[K", editor.line())?;
    if 0 < editor.behind_cursor() {
        write!(out, "\x1b[{}D", editor.behind_cursor())?;
    }
    out.flush()
}
