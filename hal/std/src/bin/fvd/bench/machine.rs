//! What is measured on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::results::Machine;
use super::tools;

/// Programs whose version matters.
const PROGRAMS: [&str; 3] = ["qemu-nbd", "fio", "postmark"];

pub(super) fn look(own: &Path, disk: &Path, memory_disk: &Path) -> Machine {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let unix_time = since.map_or(0, |since| since.as_secs());
    let processors = std::thread::available_parallelism();
    let mut versions: Vec<String> = tools::version(own).into_iter().collect();
    for program in PROGRAMS {
        // Postmark reads commands instead of options.
        if program != "postmark" && tools::is_installed(program) {
            versions.extend(tools::version(Path::new(program)));
        }
    }
    Machine {
        unix_time,
        date: date(unix_time),
        kernel: read("/proc/sys/kernel/osrelease").trim().into(),
        processor: field(&read("/proc/cpuinfo"), "model name"),
        processors: processors.map_or(1, usize::from),
        memory_bytes: memory_bytes(&read("/proc/meminfo")),
        disk: mount(disk),
        memory_disk: mount(memory_disk),
        versions,
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of `NAME : VALUE`.
fn field(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(|| "unknown".into(), |(_, value)| value.trim().into())
}

fn memory_bytes(text: &str) -> u64 {
    let value = field(text, "MemTotal");
    let kilobytes = value.split_whitespace().next().unwrap_or_default();
    kilobytes
        .parse()
        .map_or(0, |kilobytes: u64| kilobytes << 10)
}

/// File system and device of a folder.
fn mount(folder: &Path) -> String {
    let mut command = Command::new("findmnt");
    command
        .args(["-n", "-o", "FSTYPE,SOURCE", "--target"])
        .arg(folder);
    let found = tools::run(&mut command).unwrap_or_default();
    let words: Vec<&str> = found.split_whitespace().collect();
    match words[..] {
        [kind, source, ..] => format!("{kind} on {source}"),
        _ => "unknown".into(),
    }
}

/// The day of a moment, as `YYYY-MM-DD`, in UTC.
fn date(unix_seconds: u64) -> String {
    let mut days = unix_seconds / 86_400;
    let mut year = 1970;
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_735_689_599, "2024-12-31"),
            (1_735_689_600, "2025-01-01"),
        ] {
            assert_eq!(date(seconds), day);
        }
    }

    #[test]
    fn values_are_found_by_name() {
        let text = "MemTotal:       24689252 kB\nmodel name\t: A processor\n";
        assert_eq!(field(text, "model name"), "A processor");
        assert_eq!(field(text, "nothing"), "unknown");
        assert_eq!(memory_bytes(text), 24_689_252 << 10);
    }
}
