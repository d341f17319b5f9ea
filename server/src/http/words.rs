//! What is said, until the page's words are here: codes.

use kiops_app::error::Problem;
use kiops_app::model::Diagnosis;

pub fn of_problem(problem: &Problem) -> String {
    problem.code.clone()
}

pub fn of_diagnosis(diagnosis: &Diagnosis) -> String {
    diagnosis.code.clone()
}
