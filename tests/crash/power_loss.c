/* Loses power at every moment of a run's saves, 100,000 times (NITI_POWER_LOSSES: so many), on a disk in memory: the checkpoint
 * saved last is loaded each time, and no row of the metrics that belongs to it is lost. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash/disk.h"
#include "io/checkpoint.h"
#include "io/log.h"
#include "platform/file.h"
#include "platform/system.h"
#include "train/run_folder.h"

enum {
  SAVES = 6,
  ELEMENTS = 5000,
  MARKS = 16,
  DAMAGED_AFTER = 3,
  COLUMNS = 7,
  SCENARIOS = 4,
  LOSSES = 100000,
  SEEN = 1 << 21,
  SHOWN = 5
};
static const char *const keys[] = {"epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "best", "seconds"};
static const char run_path[] = "/sim/run", last[] = "/sim/run/last.safetensors", best[] = "/sim/run/best.safetensors";

typedef struct Scenario {
  const char *name;
  bool links, damaged; /* damaged: `last` is, in the midst of the run */
} Scenario;

static const Scenario scenarios[SCENARIOS] = {{"with hard links", true, false},
                                              {"without hard links", false, false},
                                              {"last damaged, with hard links", true, true},
                                              {"last damaged, without hard links", false, true}};

/* From this moment on, the step that a load must find at least. */
typedef struct Mark {
  int moment;
  int32_t step;
} Mark;

static Mark marks[MARKS];
static int mark_count;
static char where[160]; /* the state under test */
static long lost_count, distinct_count, previous_count, again_count, wrong_count;

/* Something is wrong with the state under test. */
__attribute__((format(printf, 1, 2))) static void wrong(const char *format, ...) {
  char text[600];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (wrong_count++ < SHOWN) print_message("%s: %s\n", where, text);
}

static void check(NitiStatus status, const char *what) {
  if (status != NITI_OK) fail_msg("%s: %s: status %d: %s", where, what, (int)status, niti_error());
}

static void mark(int32_t step) { marks[mark_count++] = (Mark){disk_moment(), step}; }

static void save(int32_t step, bool also_best) {
  static int8_t weights[ELEMENTS];
  static char name[64], text[16];
  const uint32_t dims[] = {ELEMENTS};
  const char *before = step % 2 ? name : NULL, *after = also_best ? "best.safetensors" : NULL;
  NitiCheckpoint *checkpoint = NULL;
  (void)snprintf(name, sizeof name, "epoch-%04d.safetensors", (int)step);
  (void)snprintf(text, sizeof text, "%d", (int)step);
  for (int i = 0; i < ELEMENTS; ++i) weights[i] = (int8_t)((i * 7 + step * 31) % 255 - 127);
  check(niti_checkpoint_open(&checkpoint), "open");
  check(niti_checkpoint_add(checkpoint, "a.weight", NITI_I8, 1, dims, -7, weights), "add");
  check(niti_checkpoint_set(checkpoint, "step", text), "set");
  check(niti_checkpoint_save_last(checkpoint, run_path, before, after, NULL), "save");
  niti_checkpoint_close(checkpoint);
}

/* The step that the checkpoint is of; -1: none loads. */
static int32_t step_of(NitiStatus status, NitiCheckpoint *checkpoint) {
  if (status != NITI_OK) {
    wrong("status %d: %s", (int)status, niti_error());
    return -1;
  }
  const int32_t step = atoi(niti_checkpoint_get(checkpoint, "step"));
  niti_checkpoint_close(checkpoint);
  return step;
}

static int32_t load(bool *previous) {
  NitiCheckpoint *checkpoint = NULL;
  const NitiStatus status = niti_checkpoint_load_last(&checkpoint, previous, run_path);
  return step_of(status, checkpoint);
}

static void log_row(NitiLog *log, int32_t epoch) {
  NitiField fields[COLUMNS] = {niti_field_integer(keys[0], epoch)};
  for (int i = 1; i < COLUMNS; ++i) fields[i] = niti_field_ratio(keys[i], 355 * epoch + i, 113, 9);
  check(niti_log_row(log, fields, COLUMNS), "row"); /* of more than 100 bytes: some lie in two blocks */
}

static void open_log(NitiLog **log, int32_t keep) { check(niti_log_open(log, run_path, keep, keys, COLUMNS), "log"); }

/* A run as train/trainer.c does it: its folder, its first checkpoint, and for every epoch a row and then a checkpoint. */
static void record_run(const Scenario *s) {
  NitiRunFolder *folder = NULL;
  NitiLog *log = NULL;
  mark_count = 0;
  (void)snprintf(where, sizeof where, "%s, recording", s->name);
  disk_format(s->links);
  check(niti_run_folder_create(&folder, run_path), "folder");
  check(niti_file_replace("/sim/run/recipe.yaml", "name: a\n", 8), "recipe");
  save(0, false);
  mark(0);
  open_log(&log, -1);
  for (int32_t epoch = 1; epoch <= SAVES; ++epoch) {
    log_row(log, epoch);
    save(epoch, true);
    mark(epoch);
    if (!s->damaged || epoch != DAMAGED_AFTER) continue;
    niti_log_close(log);
    mark(epoch - 1); /* from before the damage begins */
    disk_damage(last);
    bool previous = false;
    assert_int_equal(load(&previous), epoch - 1);
    assert_true(previous);
    open_log(&log, epoch - 1);
    log_row(log, epoch);
    save(epoch, true);
    mark(epoch);
  }
  niti_log_close(log);
  niti_run_folder_close(folder);
}

/* The file must hold rows 1 to `epochs`, each once, after a header where first is 0. */
static void check_rows(const char *name, int32_t epochs, const char *format, int32_t first) {
  char *text = NULL, path[80], expected[64];
  (void)snprintf(path, sizeof path, "%s/%s", run_path, name);
  check(niti_file_read(&text, NULL, path, 1 << 20), name);
  const char *at = text;
  for (int32_t i = first; i <= epochs && at; ++i) {
    (void)snprintf(expected, sizeof expected, format, (int)i);
    const bool there = i == 0 || strncmp(at, expected, strlen(expected)) == 0;
    at = there ? strchr(at, '\n') : NULL;
    if (at) ++at;
  }
  if (!at || *at) wrong("%s: expected rows 1 to %d in: %s", name, (int)epochs, text);
  free(text);
}

static void check_log(int32_t step) {
  NitiLog *log;
  open_log(&log, step);
  if (niti_log_note(log, 0)) wrong("%s", niti_log_note(log, 0));
  niti_log_close(log);
  check_rows("metrics.csv", step, "%d,", step > 0 ? 0 : 1);
  check_rows("metrics.jsonl", step, "{\"epoch\": %d,", 1);
}

static void count(uint64_t hash) {
  static uint64_t seen[SEEN];
  size_t at = hash % SEEN;
  while (seen[at] != 0 && seen[at] != hash) at = (at + 1) % SEEN;
  if (seen[at] == 0 && distinct_count < SEEN / 2) {
    seen[at] = hash;
    ++distinct_count;
  }
  ++lost_count;
}

/* Never newer than `last`: a run that goes on from that might not score the same epoch again, and would have lost its best. */
static void check_best(int32_t least, int32_t most) {
  NitiCheckpoint *checkpoint = NULL;
  if (least < 1) return;
  const NitiStatus status = niti_checkpoint_load(&checkpoint, best);
  const int32_t step = step_of(status, checkpoint);
  if (step >= 0 && (step < least || step > most))
    wrong("best is of step %d, expected %d to %d", (int)step, (int)least, (int)most);
}

/* After a load a run goes on: its next save must succeed over whatever the power loss left behind. */
static void check_next_save(int32_t step) {
  bool previous = true;
  save(step + 1, true);
  if (load(&previous) != step + 1 || previous) wrong("the next save is not loaded");
  ++again_count;
}

static void lose_at(const Scenario *s, int moment, int variant) {
  const DiskLoss loss = variant < LOSS_IN_ORDER ? (DiskLoss)variant : variant & 1 ? LOSS_IN_ORDER : LOSS_ANY_ORDER;
  const size_t block = variant & 2 ? 512 : 4096;
  int now = -1;
  bool previous = false;
  (void)snprintf(where, sizeof where, "%s, moment %d, variant %d", s->name, moment, variant);
  count(disk_lose(moment, loss, block, (uint64_t)moment << 32 | (uint64_t)variant));
  for (int i = 0; i < mark_count && marks[i].moment <= moment; ++i) now = i;
  if (now >= 0) {
    const int32_t least = marks[now].step, step = load(&previous);
    if (step >= 0 && (step < least || step > least + 1))
      wrong("step %d is loaded, expected %d or one more", (int)step, (int)least);
    previous_count += previous;
    check_best(least, s->damaged ? SAVES : step);
    if (step >= 0) check_log(step);
    if (step >= 0 && variant % 16 == 5) check_next_save(step);
  }
  disk_restore();
}

static void test_power_loss(void **state) {
  const char *wanted = getenv("NITI_POWER_LOSSES");
  const long losses = wanted ? atol(wanted) : LOSSES;
  (void)state;
  for (int i = 0; i < SCENARIOS; ++i) {
    const Scenario *s = &scenarios[i];
    record_run(s);
    const int moments = disk_moment();
    long open = 0;
    for (int m = 1; m <= moments; ++m) open += disk_open(m);
    for (int m = 1; m <= moments; ++m) {
      const long variants = losses * disk_open(m) / SCENARIOS / open + LOSS_KINDS;
      for (int v = 0; v < variants; ++v) lose_at(s, m, v);
    }
    print_message("%s: %d operations\n", s->name, moments);
  }
  print_message("%ld power losses, %ld states that differ; %ld loads of `previous`, %ld runs saved on, %ld wrong\n", lost_count,
                distinct_count, previous_count, again_count, wrong_count);
  assert_int_equal(wrong_count, 0);
  assert_true(lost_count >= losses);
}

static bool go_on(void *asked) {
  ++*(int *)asked;
  return true;
}

/* As training reads its files: where somebody may end it, a read waits by poll. */
static void test_watched_read(void **state) {
  static const char path[] = "/sim/file", text[] = "some text";
  int asked = 0;
  char *data;
  size_t size;
  (void)state;
  disk_format(true);
  const int fd = niti_system.open(path, O_WRONLY | O_CREAT, 0666);
  assert_int_equal(niti_system.write(fd, text, sizeof text - 1), sizeof text - 1);
  assert_int_equal(niti_system.close(fd), 0);
  niti_file_watch(&(NitiFileWatch){go_on, &asked});
  const NitiStatus status = niti_file_read_any(&data, &size, path, 100);
  niti_file_watch(NULL);
  assert_int_equal(status, NITI_OK);
  assert_true(asked > 0);
  assert_int_equal(size, sizeof text - 1);
  assert_memory_equal(data, text, size);
  free(data);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_watched_read), cmocka_unit_test(test_power_loss)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
