use inngest_failure::on_failure;

#[on_failure(function = "a", priority = 601)]
async fn too_high() {}

#[on_failure(function = "b", priority = -2147483648)]
async fn too_low() {}

#[on_failure(function = "c", priority = "event.data.urgency")]
async fn expression() {}

#[on_failure(function = "d", priority = 1.5)]
async fn fraction() {}

fn main() {}
