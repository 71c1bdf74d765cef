"""The commands of whoever uses a service or runs one: `dvt classify`, `dvt budget`, `dvt top`, `dvt plan`, and
`dvt completion`."""
