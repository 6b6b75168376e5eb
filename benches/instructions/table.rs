//! The table of figures: how it is printed, read, and set beside another.

use std::fmt;

use anyhow::{Context, Result, bail};

use crate::count::BATCHES;

/// What a table in a file says of itself.
const HEADING: &str = "\
# Instructions of the reactor's thread per command, at 1 and at 16 commands per batch.
# Made by `cargo run --release -p carnelian-benches --bin instructions -- --count`.
# From run to run they differ by up to 0.3 %, and more from one kind of processor to another.
";

/// Instructions per command, by workload and size of the batch; none where it cannot run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub rows: Vec<(String, [Option<f64>; BATCHES.len()])>,
}

impl Table {
    pub fn parse(text: &str) -> Result<Self> {
        let is_row = |line: &&str| !line.is_empty() && !line.starts_with('#');
        let mut rows = Vec::new();
        // The first line names the columns.
        for line in text.lines().filter(is_row).skip(1) {
            let mut words = line.split_whitespace();
            let name = words.next().context("a line without words")?.to_owned();
            let mut figures = [None; BATCHES.len()];
            for figure in &mut figures {
                *figure = match words.next() {
                    Some("-") => None,
                    Some(word) => Some(word.parse().with_context(|| format!("in '{line}'"))?),
                    None => bail!("too few figures in '{line}'"),
                };
            }
            rows.push((name, figures));
        }
        Ok(Self { rows })
    }

    /// This table with the change since `before`, in percent.
    pub fn beside<'a>(&'a self, before: &'a Self) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            write!(f, "{:10}", "command")?;
            for batch in BATCHES {
                write!(f, "{:>11}{:>9}", format!("batch-{batch}"), "change")?;
            }
            writeln!(f)?;
            for (name, figures) in &self.rows {
                let earlier = before.rows.iter().find(|(known, _)| known == name);
                write!(f, "{name:10}")?;
                for (at, figure) in figures.iter().enumerate() {
                    let earlier = earlier.and_then(|(_, figures)| figures[at]);
                    let change = match (figure, earlier) {
                        (Some(now), Some(then)) => format!("{:+.1}%", 100.0 * (now / then - 1.0)),
                        _ => "-".to_owned(),
                    };
                    write!(f, "{:>11}{change:>9}", shown(*figure))?;
                }
                writeln!(f)?;
            }
            Ok(())
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADING)?;
        if let Some(processor) = processor() {
            writeln!(f, "# Processor: {processor}")?;
        }
        write!(f, "{:10}", "command")?;
        for batch in BATCHES {
            write!(f, "{:>11}", format!("batch-{batch}"))?;
        }
        writeln!(f)?;
        for (name, figures) in &self.rows {
            write!(f, "{name:10}")?;
            for figure in figures {
                write!(f, "{:>11}", shown(*figure))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// What Linux calls this machine's processor.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn shown(figure: Option<f64>) -> String {
    figure.map_or("-".to_owned(), |figure| format!("{figure:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(get: f64) -> Table {
        Table {
            rows: vec![
                ("GET".to_owned(), [Some(get), Some(500.0)]),
                ("LPUSH".to_owned(), [None, None]),
            ],
        }
    }

    #[test]
    fn a_table_reads_back_what_it_prints() {
        let table = table(2000.0);
        assert_eq!(Table::parse(&table.to_string()).unwrap(), table);
        assert!(Table::parse("command batch-1 batch-16\nGET 12").is_err());
    }

    #[test]
    fn a_change_is_shown_in_percent() {
        let text = table(2100.0).beside(&table(2000.0)).to_string();
        assert!(text.contains("2100    +5.0%        500    +0.0%"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
