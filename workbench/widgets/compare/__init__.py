"""Before and after: answers, maps and the strength slider."""
