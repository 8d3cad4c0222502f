//! Files that are larger than the memory may be.
//!
//! The full count, of 1 GiB:
//!
//! ```text
//! cargo test --release -p tests --test cli large:: -- --ignored --nocapture
//! ```

#![cfg(target_os = "linux")]

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::{Place, failure, row};

const MIB: usize = 1024 * 1024;

/// Writes events of which a few are failures, and gives how many of them a handler is for.
fn write(place: &Place, bytes: usize) -> usize {
    let mut file = BufWriter::new(File::create(place.path("f")).unwrap());
    let note = "x".repeat(800);
    let (mut written, mut wanted) = (0, 0);
    for n in 0.. {
        if written >= bytes {
            break;
        }
        let line = match n % 1000 {
            0 => {
                wanted += 1;
                failure("shop-checkout", n)
            }
            1..100 => failure("shop-other", n),
            _ => {
                format!(
                    r#"{{"name":"shop/order.placed","id":"p{n}","ts":1795378383544,"data":{{"order_id":"o{n}","note":"{note}"}}}}"#
                ) + "\n"
            }
        };
        file.write_all(line.as_bytes()).unwrap();
        written += line.len();
    }
    file.flush().unwrap();
    wanted
}

/// Dispatches such a file. The most memory that it took, in bytes.
fn dispatched(bytes: usize) -> usize {
    let place = Place::new();
    let wanted = write(&place, bytes);
    let began = Instant::now();
    let args = ["dispatch", "f", "--only", "shop-checkout-failure"];
    let mut running = place.start(&args, Stdio::null());
    let status = format!("/proc/{}/status", running.0.id());
    let mut most = 0;
    while running.0.try_wait().unwrap().is_none() {
        // Empty once it has ended.
        let status = fs::read_to_string(&status).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(peak) = peak {
            most = peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024;
        }
        assert!(began.elapsed() < Duration::from_secs(1200), "it takes too long");
        thread::sleep(Duration::from_millis(2));
    }
    let took = began.elapsed();
    let ended = running.end();
    let row = row(ended.well(), "shop-checkout-failure");
    assert_eq!(row[0].replace(',', ""), wanted.to_string());
    assert_eq!(place.effects_once().len(), 2 * wanted);
    let mib = bytes as f64 / MIB as f64;
    println!(
        "{mib} MiB: {wanted} handled, {:.1} MiB at most, {:.2} s, {:.1} MiB/s",
        most as f64 / MIB as f64,
        took.as_secs_f64(),
        mib / took.as_secs_f64(),
    );
    assert!(most > MIB);
    most
}

/// `more` is what it may take beyond a file of a megabyte: less than the file, which would need that much if it were held.
fn constant(bytes: usize, more: usize) {
    assert!(more < bytes);
    let (small, large) = (dispatched(MIB), dispatched(bytes));
    assert!(large < small + more, "{large} bytes, and {small} of a small file");
}

#[test]
fn a_large_file_takes_no_more_memory_than_a_small_one() {
    constant(10 * MIB, 6 * MIB);
}

#[test]
#[ignore = "the full count"]
fn a_file_of_a_gigabyte_takes_no_more_memory_than_a_small_one() {
    constant(1024 * MIB, 100 * MIB);
}
