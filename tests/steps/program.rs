//! A handler that does what the failure's data says, and what is to come of it.

use std::collections::BTreeMap;

use futures_util::future::{BoxFuture, join_all};
use inngest_failure::{Failure, HandlerError, RunContext, State, Step, StepError, on_failure};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use serde::{Deserialize, Serialize};

use crate::Seen;

/// What a handler does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Program {
    /// A step that fails in its first attempts, and whose error the handler may recover from.
    Step {
        id: String,
        failures: u32,
        recovers: bool,
    },
    Sleep {
        id: String,
    },
    /// One after the other, until one fails.
    Sequence(Vec<Program>),
    /// Side by side: all are waited for, the first error counts.
    Join(Vec<Program>),
}

/// More failures than a step has attempts.
pub(crate) const ALWAYS: u32 = 1000;

#[on_failure(function = "program", retries = 20)]
pub(crate) async fn program(
    failure: Failure<Program>,
    run: RunContext,
    State(seen): State<Seen>,
    step: Step,
) -> Result<Vec<String>, HandlerError> {
    Ok(failure.event.data.run(&step, &seen, run.attempt).await?)
}

impl Program {
    fn run<'a>(
        &'a self,
        step: &'a Step,
        seen: &'a Seen,
        attempt: u32,
    ) -> BoxFuture<'a, Result<Vec<String>, StepError>> {
        Box::pin(async move {
            match self {
                Self::Step { id, failures, recovers } => {
                    let result = step
                        .run(id, async || {
                            if attempt < *failures {
                                return Err(format!("{id} failed"));
                            }
                            // Something else in between, as in real life.
                            tokio::task::yield_now().await;
                            seen.note(id);
                            Ok(id.clone())
                        })
                        .await;
                    match result {
                        Err(error) if *recovers => Ok(vec![error.message]),
                        result => result.map(|value| vec![value]),
                    }
                }
                Self::Sleep { id } => {
                    step.sleep(id, std::time::Duration::from_secs(60)).await.map(|()| Vec::new())
                }
                Self::Sequence(programs) => {
                    let mut all = Vec::new();
                    for program in programs {
                        all.extend(program.run(step, seen, attempt).await?);
                    }
                    Ok(all)
                }
                Self::Join(programs) => {
                    let runs = programs.iter().map(|program| program.run(step, seen, attempt));
                    let all = join_all(runs).await.into_iter().collect::<Result<Vec<_>, _>>()?;
                    Ok(all.concat())
                }
            }
        })
    }

    /// What plain code would do, step after step: what it returns or fails with, and how often each closure completes.
    pub(crate) fn expected(
        &self,
        completions: &mut BTreeMap<String, usize>,
    ) -> Result<Vec<String>, String> {
        match self {
            Self::Step { id, failures, recovers } => match (*failures == ALWAYS, recovers) {
                (true, true) => Ok(vec![format!("{id} failed")]),
                (true, false) => Err(format!("{id} failed")),
                (false, _) => {
                    *completions.entry(id.clone()).or_default() += 1;
                    Ok(vec![id.clone()])
                }
            },
            Self::Sleep { .. } => Ok(Vec::new()),
            Self::Sequence(programs) => {
                let mut all = Vec::new();
                for program in programs {
                    all.extend(program.expected(completions)?);
                }
                Ok(all)
            }
            Self::Join(programs) => {
                let all: Vec<_> =
                    programs.iter().map(|program| program.expected(completions)).collect();
                Ok(all.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
            }
        }
    }
}

/// Programs of at most eight steps. Some share an id, where that is deterministic: one after the other.
pub(crate) fn programs(may_fail: bool) -> impl Strategy<Value = Program> {
    let failures = match may_fail {
        true => prop_oneof![4 => Just(0_u32), 2 => 1..4_u32, 1 => Just(ALWAYS)].boxed(),
        false => Just(0).boxed(),
    };
    let step = (failures, any::<bool>()).prop_map(|(failures, recovers)| Program::Step {
        id: String::new(),
        failures,
        recovers,
    });
    let leaf = prop_oneof![6 => step, 1 => Just(Program::Sleep { id: String::new() })];
    let tree = leaf.prop_recursive(3, 8, 3, |inner| {
        let some = proptest::collection::vec(inner, 1..4);
        prop_oneof![some.clone().prop_map(Program::Sequence), some.prop_map(Program::Join)]
    });
    tree.prop_map(|mut program| {
        let mut count = 0;
        name(&mut program, &mut count);
        prune(&mut program, &mut 0);
        program
    })
}

fn name(program: &mut Program, count: &mut u32) {
    match program {
        Program::Step { id, .. } | Program::Sleep { id } => {
            *id = format!("s{count}");
            *count += 1;
        }
        Program::Sequence(programs) | Program::Join(programs) => {
            programs.iter_mut().for_each(|program| name(program, count));
        }
    }
}

/// Leaves eight steps.
fn prune(program: &mut Program, count: &mut u32) {
    if let Program::Sequence(programs) | Program::Join(programs) = program {
        programs.retain_mut(|program| {
            prune(program, count);
            let is_leaf = matches!(program, Program::Step { .. } | Program::Sleep { .. });
            *count += u32::from(is_leaf);
            !is_leaf || *count <= 8
        });
    }
}
