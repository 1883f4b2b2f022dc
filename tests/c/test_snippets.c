/* Snippets on C's side: an offer is its own transaction's, once; what is logged; and the bounds of a run, with the LuaJIT that tslua.so has. */
#include "../../plugin_c/hooks/snippets.c"
#include "tap.h"

static char logged[2048];
static uint32_t n_logged;

static void
line_take(int level, const char *line)
{
  (void)level;
  (void)snprintf(logged, sizeof logged, "%s", line);
  n_logged++;
}

static const struct atsk_controller_host host = {.log = line_take};

static struct atsk_str
str(const char *text)
{
  return (struct atsk_str){text, strlen(text)};
}

static void
offers(void)
{
  struct atsk_snippet got;
  CHECK(atsk_snippet_take(1, &got) == ATSK_MISS, "nothing was offered");
  char text[] = "return 1";
  atsk_snippets_offer(7, 99, str("shop/web"), str(text));
  memset(text, 'x', sizeof text - 1); /* the table may be gone */
  CHECK(atsk_snippet_take(8, &got) == ATSK_MISS, "another transaction gets nothing");
  CHECK(atsk_snippet_take(7, &got) == ATSK_OK && got.id == 99 && got.object_len == 8 && memcmp(got.object, "shop/web", 8) == 0 &&
          got.text_len == 8 && memcmp(got.text, "return 1", 8) == 0,
        "its own gets a copy");
  CHECK(atsk_snippet_take(7, &got) == ATSK_MISS, "once");
  atsk_snippets_offer(9, 1, str("a/b"), str("x"));
  atsk_snippets_offer(10, 2, str("a/c"), str("y"));
  CHECK(atsk_counter_sum(ATSK_COUNT_SNIPPETS_NOT_RUN) == 1 && n_logged == 1 && strstr(logged, "tslua.so") != NULL,
        "one that nobody took is counted, and told");
  atsk_snippets_offer(11, 2, str("a/c"), str("y"));
  CHECK(atsk_counter_sum(ATSK_COUNT_SNIPPETS_NOT_RUN) == 2 && n_logged == 1, "once");
  char large[ATSK_SNIPPET_MAX + 1];
  memset(large, ' ', sizeof large);
  atsk_snippets_offer(12, 2, (struct atsk_str){large, 600}, (struct atsk_str){large, ATSK_SNIPPET_MAX});
  CHECK(atsk_snippet_take(12, &got) == ATSK_OK && got.text_len == ATSK_SNIPPET_MAX && got.object_len == ATSK_SNIPPET_OBJECT_MAX,
        "the longest; an object's name is cut");
  atsk_snippets_offer(13, 2, str("a/c"), (struct atsk_str){large, sizeof large});
  CHECK(atsk_snippet_take(13, &got) == ATSK_MISS, "a longer one is not run");
}

static void
reports(void)
{
  n_logged = 0;
  atsk_snippet_report(ATSK_SNIPPET_RAN, "a/b", 3, "", 0);
  CHECK(atsk_counter_sum(ATSK_COUNT_SNIPPETS_RAN) == 1 && n_logged == 0, "a run is counted, and no line");
  atsk_snippet_report(ATSK_SNIPPET_SYNTAX, "a/b", 3, "a/b:1: bad", 10);
  CHECK(atsk_counter_sum(ATSK_COUNT_SNIPPETS_SYNTAX) == 1 && strcmp(logged, "snippet of Ingress a/b: a/b:1: bad") == 0,
        "an error is both");
  atsk_snippet_report(1234, "a/b", 3, "", 0);
  atsk_snippet_report(-1, "a/b", 3, "", 0);
  static char endless[1 << 20];
  memset(endless, 'e', sizeof endless);
  atsk_snippet_report(ATSK_SNIPPET_SAID, "a/b", 3, endless, sizeof endless);
  CHECK(strlen(logged) == LINE_MAX_BYTES - 1, "a line has an end");
  for (uint32_t i = 0; i < 1000; i++) {
    atsk_snippet_report(ATSK_SNIPPET_ERROR, "a/b", 3, "again", 5);
  }
  CHECK(atsk_counter_sum(ATSK_COUNT_SNIPPETS_ERROR) == 1000, "all are counted");
  CHECK(n_logged <= 3 * ATSK_SNIPPET_LINES_MAX && atsk_counter_sum(ATSK_COUNT_SNIPPET_LINES_DROPPED) >= 900, "few are logged: %u",
        n_logged);
}

/* --- bounds, by a Lua state of its own ------------------------------------------------------------------------------------------ */

static struct {
  struct lua_State *(*newstate)(void);
  void (*openlibs)(struct lua_State *state);
  int (*loadstring)(struct lua_State *state, const char *text);
  void (*pushcclosure)(struct lua_State *state, int (*call)(struct lua_State *state), int n);
  void (*setfield)(struct lua_State *state, int index, const char *name);
  const char *(*tolstring)(struct lua_State *state, int index, size_t *len);
  int (*pcall)(struct lua_State *state, int n_arguments, int n_results, int handler);
  void (*settop)(struct lua_State *state, int index);
  void (*close)(struct lua_State *state);
} jit;

#define LUA_GLOBALS (-10002) /* LUA_GLOBALSINDEX */

static bool
jit_find(void)
{
  void *library = dlopen("libluajit-5.1.so.2", RTLD_NOW);
  const struct {
    const char *name;
    void *place;
  } needed[] = {
    {"luaL_newstate", &jit.newstate},
    {"luaL_openlibs", &jit.openlibs},
    {"luaL_loadstring", &jit.loadstring},
    {"lua_setfield", &jit.setfield},
    {"lua_pushcclosure", &jit.pushcclosure},
    {"lua_tolstring", &jit.tolstring},
    {"lua_pcall", &jit.pcall},
    {"lua_settop", &jit.settop},
    {"lua_close", &jit.close},
  };
  for (size_t i = 0; library != NULL && i < sizeof needed / sizeof needed[0]; i++) {
    void *found = dlsym(library, needed[i].name);
    if (found == NULL) {
      return false;
    }
    memcpy(needed[i].place, &found, sizeof found);
  }
  return library != NULL;
}

/* What a program says under guard(): its result's number, a blank, and its value or error. */
static void
says(struct lua_State *state, const char *body, const char *expected)
{
  char text[1024];
  (void)snprintf(text, sizeof text,
                 "jit.off(true, true) local function call() %s end jit.off(call, true) "
                 "local n, value = guard(call) return n .. ' ' .. tostring(value)",
                 body);
  int status       = jit.loadstring(state, text) != 0 ? 1 : jit.pcall(state, 0, 1, 0);
  const char *said = jit.tolstring(state, -1, NULL);
  CHECK(status == 0 && strncmp(said, expected, strlen(expected)) == 0, "%s: %s", body, said);
  jit.settop(state, 0);
}

static void
bounds(void)
{
  if (!jit_find()) {
    printf("# no libluajit-5.1.so.2: bounds are left to the integration tests\n");
    return;
  }
  struct lua_State *state = jit.newstate();
  jit.openlibs(state);
  jit.pushcclosure(state, atsk_snippet_guard, 0);
  jit.setfield(state, LUA_GLOBALS, "guard");
  jit.pushcclosure(state, atsk_snippet_is_over, 0);
  jit.setfield(state, LUA_GLOBALS, "is_over");
  says(state, "return 5", "0 5");
  says(state, "error('bad', 0)", "2 bad");
  says(state, "return is_over()", "0 false");
  says(state, "while true do end", "3 ");
  says(state, "while true do if not pcall(function() while true do end end) then return is_over() end end", "3 ");
  says(state, "local function f() return f() end return f()", "3 ");
  says(state, "local s = 'x' while true do s = s .. s end", "4 not enough memory");
  says(state, "local t = {} for i = 1, 100 do t[i] = ('x'):rep(1e6) .. i end", "4 not enough memory");
  says(state, "return guard(function() while true do end end)", "3 ");
  says(state, "for i = 1, 1e5 do end return 6", "0 6");
  for (uint32_t i = 0; i < 10; i++) {
    says(state, "local t = {} for i = 1, 100 do t[i] = ('x'):rep(1e5) .. i end return #t", "0 100");
    says(state, "local s = 'x' while true do s = s .. s end", "4 ");
    REQUIRE(jit.loadstring(state, "collectgarbage()") == 0 && jit.pcall(state, 0, 0, 0) == 0, "collected");
  }
  CHECK(!run.is_running, "nothing runs");
  jit.close(state);
}

int
main(void)
{
  atsk_controller_host_set(&host);
  offers();
  reports();
  bounds();
  free(offered.room);
  return tap_end();
}
