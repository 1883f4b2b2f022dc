/* Lua of an Ingress, as far as C goes: which snippet the request in hand has, the bounds of one run, and what came of it.  The other side
 * is deploy/lua/snippets.lua, which tslua.so runs right after kubernetes_remap.so in the same rule: on the same thread, before anything
 * else runs there.  ATS's threads.  No TS API; of Lua's own functions those of the LuaJIT that tslua.so has loaded.
 * docs/snippets.md is the specification. */
#ifndef ATSK_SNIPPETS_H
#define ATSK_SNIPPETS_H

#include "base/atsk_base.h"
#include "blob/atsk_format.h"

ATSK_BEGIN_DECLS

#define ATSK_SNIPPETS_VERSION 1u                   /* of what is below, and of snippets.lua */
#define ATSK_SNIPPET_OBJECT_MAX 512u               /* bytes of "namespace/name"; more is cut */
#define ATSK_SNIPPET_INSTRUCTIONS_MAX 1000000u     /* of one run, in Lua's virtual machine */
#define ATSK_SNIPPET_CPU_NS_MAX 20000000ull        /* of one run: what is no instruction of Lua's, but a long call of C's */
#define ATSK_SNIPPET_MEMORY_MAX ((size_t)16 << 20) /* bytes that one run may add to its Lua state */
#define ATSK_SNIPPET_LINES_MAX 20u                 /* in the log, in a second, of all snippets together */

/* What became of a run; the numbers cross into snippets.lua. */
enum atsk_snippet_result {
  ATSK_SNIPPET_RAN       = 0,
  ATSK_SNIPPET_SYNTAX    = 1, /* does not compile */
  ATSK_SNIPPET_ERROR     = 2, /* an error at run time */
  ATSK_SNIPPET_STOPPED   = 3, /* too many instructions, or too much time */
  ATSK_SNIPPET_MEMORY    = 4, /* too much memory */
  ATSK_SNIPPET_SUSPENDED = 5, /* was stopped too often: not run for a while */
  ATSK_SNIPPET_SAID      = 6, /* nothing became of it: a line of the snippet's own */
};

/* What snippets.lua is given; borrowed: until this thread's next request. */
struct atsk_snippet {
  uint64_t id; /* struct atsk_policy_snippet's */
  const char *object;
  size_t object_len;
  const char *text;
  size_t text_len;
};

/* --- the request's side ------------------------------------------------------------------------------------------------------- */

/* The request in hand, whose transaction is number `txn`, has this snippet: kept, as a copy, until it is taken or the next one comes.
 * Without memory it has none, which is counted as not run. */
void atsk_snippets_offer(uint64_t txn, uint64_t id, struct atsk_str object, struct atsk_str text);

/* --- Lua's side, through FFI -------------------------------------------------------------------------------------------------- */

struct lua_State;

ATSK_API uint32_t atsk_snippets_version(void);

/* The snippet of transaction `txn`, once.  ATSK_MISS: it has none. */
ATSK_API int atsk_snippet_take(uint64_t txn, struct atsk_snippet *out);

/* Counts what came of a run of `object`'s snippet, enum atsk_snippet_result, and logs `message` if there is one and the log has room. */
ATSK_API void atsk_snippet_report(int result, const char *object, size_t object_len, const char *message, size_t message_len);

/* A lua_CFunction, through package.loadlib: calls its first argument with the others, within the bounds above.  Returns an enum
 * atsk_snippet_result, and the function's first result or its error.  Once over a bound, every further instruction of the run fails, so that
 * no pcall() of the snippet's goes on.  A nested one is bounded by the outer one's. */
ATSK_API int atsk_snippet_guard(struct lua_State *state);

/* A lua_CFunction: true if the run in hand is over a bound; looks at the time, too. */
ATSK_API int atsk_snippet_is_over(struct lua_State *state);

ATSK_END_DECLS
#endif
