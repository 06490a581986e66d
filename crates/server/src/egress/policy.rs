/// Rules of egress; see the module that lands beside it.
#[derive(Debug, Clone, Default)]
pub struct Policy {}
