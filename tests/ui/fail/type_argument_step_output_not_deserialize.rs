use inngest_failure::{StepOutput, on_failure};

struct Charge;

#[on_failure(function = "checkout", step = "charge-card")]
async fn undo(_charge: StepOutput<Charge>) {}

fn main() {}
