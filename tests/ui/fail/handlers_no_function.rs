use inngest_failure::handlers;

const UNDO: u32 = 1;
struct Undo;

fn main() {
    let _ = handlers![Undo];
    let _ = handlers![UNDO];
}
