use inngest_failure::{StepOutput, on_failure};

#[on_failure(function = "checkout", step = "charge-card")]
async fn undo(_charge_id: &StepOutput<String>) {}

fn main() {}
