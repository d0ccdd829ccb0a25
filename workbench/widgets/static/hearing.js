// A model of anywidget that hears Python. anywidget 0.11 gives a model two seconds to load, and drops for good what Python
// says to one that took longer: on a busy page each click would wait for ever. What runs here has loaded, so its messages
// go to the class before anywidget's, and its state is asked for anew.

const SEEN = Symbol.for("workbench.hearing");
const MYSELF = "_myself";
const NOTHING = { content: { data: { method: "nothing" } } };
const TAKE = "_handle_comm_msg";

// anywidget shows a module a part of its model only; an event has the whole. Nothing of this is sent or saved.
function wholeOf(model) {
  let whole = null;
  const take = (itself) => {
    whole = itself;
  };
  model.on(`change:${MYSELF}`, take);
  model.set(MYSELF, {});
  model.off(`change:${MYSELF}`, take);
  if (!whole) return null;
  delete whole.attributes[MYSELF];
  delete whole._buffered_state_diff?.[MYSELF];
  return whole;
}

// What takes a message: of the model's class, and of the classes before it.
function takers(whole) {
  const found = [];
  for (let at = whole; at; at = Object.getPrototypeOf(at)) if (Object.hasOwn(at, TAKE)) found.push(at[TAKE]);
  return found;
}

// Once for each model, however often it is drawn.
export function hear(model) {
  const whole = wholeOf(model);
  const [own, before] = whole ? takers(whole) : [];
  if (!before || !whole.comm || whole[SEEN]) return;
  whole[SEEN] = true;
  Promise.resolve(own.call(whole, NOTHING)).catch(() => {
    whole.comm.on_msg((message) => before.call(whole, message));
    whole.comm.send({ method: "request_state" }, {});
  });
}
