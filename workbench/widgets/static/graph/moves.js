// The keys of a graph. What is not one of them is left to the page.

// The node next to one in a direction: within a layer sideways, else the nearest of those above or below.
function nextNode(view, at, key) {
  const [nodes, xs, ys] = ["nodes", "xs", "ys"].map((name) => view.model.get(name));
  const flat = key === "ArrowLeft" || key === "ArrowRight";
  const sign = key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1;
  let best = -1;
  let least = Infinity;
  nodes.forEach((name, i) => {
    const [dx, dy] = [xs[i] - xs[at], ys[i] - ys[at]];
    const [ahead, aside] = flat ? [sign * dx, Math.abs(dy)] : [sign * dy, Math.abs(dx)];
    if (i === at || ahead < 1 || (flat && aside > 20)) return;
    const cost = flat ? ahead : ahead * 4 + aside;
    if (cost < least) [best, least] = [i, cost];
  });
  return best < 0 ? nodes[at] : nodes[best];
}

// On an edge: up to its receiver, down to its sender, sideways to the next one in the order of size.
function fromEdge(view, at, key) {
  const [edges, starts, ends, nodes] = ["edges", "starts", "ends", "nodes"].map((name) => view.model.get(name));
  if (key === "ArrowUp") return nodes[ends[at]];
  if (key === "ArrowDown") return nodes[starts[at]];
  const next = at + (key === "ArrowRight" ? 1 : -1);
  return edges[Math.max(0, Math.min(edges.length - 1, next))];
}

export function handleGraphKey(event, view) {
  const [nodes, edges, starts, ends] = ["nodes", "edges", "starts", "ends"].map((name) => view.model.get(name));
  if (!nodes.length) return;
  const command = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const cursor = view.cursor();
  const [node, edge] = [nodes.indexOf(cursor), edges.indexOf(cursor)];
  if (key.startsWith("Arrow") && !command && !event.altKey) {
    if (cursor === null) view.setCursor(nodes[nodes.length - 1]);
    else view.setCursor(edge >= 0 ? fromEdge(view, edge, key) : nextNode(view, node, key));
  } else if (key === "Home" || key === "End") view.setCursor(nodes[key === "Home" ? nodes.length - 1 : 0]);
  else if (key === "e" && !command && !event.altKey) {
    const first = edges.find((_, i) => node < 0 || starts[i] === node || ends[i] === node);
    if (first) view.setCursor(first);
  } else if (command && (key === "z" || key === "y")) view.takeBack(key === "y" || event.shiftKey);
  else if (key === "Enter" && event.shiftKey) view.path(cursor);
  else if ((key === " " || key === "Enter") && !command) view.choose(cursor);
  else return;
  event.preventDefault();
  event.stopPropagation();
}
