//! Which route and model a run gets.
//! Owns: the order of the levels: the submission, the session, the operator.
//! Never: knows whether the route exists.

/// What one level says. A model without a route holds for whichever route the levels below choose.
#[derive(Debug, Clone, Copy, Default)]
pub struct Level<'a> {
    /// Route id.
    pub route: Option<&'a str>,
    /// Model.
    pub model: Option<&'a str>,
}

/// The choice of the levels, the first of which wins; what is left `None` is up to the routes file. A model is never
/// carried to a route that a stronger level chose, since it may belong to another vendor.
pub fn choose<'a>(levels: &[Level<'a>]) -> Level<'a> {
    let mut chosen = Level::default();
    for level in levels {
        let fits = chosen.route.is_none() || level.route == chosen.route;
        if fits {
            chosen.model = chosen.model.or(level.model);
        }
        chosen.route = chosen.route.or(level.route);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_stays_with_the_route_that_it_was_chosen_for() {
        type Pair = (Option<&'static str>, Option<&'static str>);
        let cases: &[(&[Pair], Pair)] = &[
            (&[(None, None), (None, None), (None, None)], (None, None)),
            (&[(Some("a"), None), (Some("b"), Some("mb")), (None, Some("m"))], (Some("a"), None)),
            (&[(Some("a"), None), (Some("a"), Some("ma")), (Some("b"), Some("mb"))], (Some("a"), Some("ma"))),
            (&[(None, None), (Some("b"), Some("mb")), (None, Some("m"))], (Some("b"), Some("mb"))),
            (&[(None, Some("m")), (Some("b"), Some("mb")), (None, None)], (Some("b"), Some("m"))),
            (&[(None, None), (None, Some("ms")), (Some("c"), Some("mc"))], (Some("c"), Some("ms"))),
            (&[(None, None), (None, None), (None, Some("m"))], (None, Some("m"))),
            (&[(None, None), (Some("b"), None), (Some("b"), Some("mb"))], (Some("b"), Some("mb"))),
        ];
        for (levels, expected) in cases {
            let levels: Vec<Level<'_>> =
                levels.iter().map(|(route, model)| Level { route: *route, model: *model }).collect();
            let chosen = choose(&levels);
            assert_eq!((chosen.route, chosen.model), *expected, "{levels:?}");
        }
    }
}
