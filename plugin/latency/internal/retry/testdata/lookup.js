// lookup.js NAME: looks up NAME for both families with c-ares. Prints how long
// that took, in ms.
const dns = require('dns').promises;
const from = performance.now();
Promise.allSettled([dns.resolve4(process.argv[2]), dns.resolve6(process.argv[2])]).then((r) => {
  for (const e of r) if (e.reason) console.error(e.reason.message);
  console.log((performance.now() - from).toFixed(1));
});
