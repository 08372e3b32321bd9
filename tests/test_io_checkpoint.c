/* Checkpoints: round trips, damage anywhere, and saves that fail or are killed. */
#include <fcntl.h>
#include <sys/wait.h>

#include "io/checkpoint.h"
#include "io_test.h"

static int8_t conv[2 * 1 * 1 * 3] = {127, -127, 0, 1, -1, 64};
static int8_t fc[5] = {1, 2, 3, 4, 5};
static int16_t wide[2] = {-300, 32767};
static int64_t state64[1] = {INT64_MIN};

static void set_step(NitiCheckpoint *c, uint64_t step) {
  char text[24];
  (void)snprintf(text, sizeof text, "%llu", (unsigned long long)step);
  check_ok(niti_checkpoint_set(c, "step", text));
}

static uint64_t step_of(const NitiCheckpoint *c) {
  const char *text;
  check_ok(niti_checkpoint_want(&text, c, "step"));
  return strtoull(text, NULL, 10);
}

static NitiCheckpoint *make_checkpoint(uint64_t step) {
  NitiCheckpoint *c;
  check_ok(niti_checkpoint_open(&c));
  check_ok(niti_checkpoint_add(c, "fc.weight", NITI_I8, 2, (const uint32_t[]){1, 5}, 3, fc));
  check_ok(niti_checkpoint_add(c, "conv.weight", NITI_I8, 4, (const uint32_t[]){2, 1, 1, 3}, -9, conv));
  check_ok(niti_checkpoint_add(c, "wide", NITI_I16, 1, (const uint32_t[]){2}, 0, wide));
  check_ok(niti_checkpoint_add(c, "state", NITI_I64, 0, NULL, 7, state64));
  check_ok(niti_checkpoint_set(c, "model", "input: 1x1x3\nname: \"\xc3\xa9\"\n"));
  check_ok(niti_checkpoint_set(c, "note", "first"));
  check_ok(niti_checkpoint_set(c, "note", "second"));
  check_ok(niti_checkpoint_set(c, "empty", ""));
  set_step(c, step);
  return c;
}

static void save_to(uint64_t step, const char *path) {
  NitiCheckpoint *c = make_checkpoint(step);
  check_ok(niti_checkpoint_save(c, path));
  niti_checkpoint_close(c);
}

static uint64_t load_step(const char *path) {
  NitiCheckpoint *c;
  check_ok(niti_checkpoint_load(&c, path));
  const uint64_t step = step_of(c);
  niti_checkpoint_close(c);
  return step;
}

static void test_checkpoint_round_trip(void **state) {
  (void)state;
  NitiCheckpoint *saved = make_checkpoint(123456789012345), *c;
  char before[65], after[65];
  check_ok(niti_checkpoint_save(saved, at("c")));
  check_ok(niti_checkpoint_load(&c, at("c")));
  assert_int_equal(count_files(), 1);
  assert_int_equal(c->tensor_count, 4);
  assert_string_equal(c->tensors[0].name, "conv.weight"); /* byte order of names */
  const NitiCheckpointTensor *tensor = niti_checkpoint_find(c, "conv.weight");
  assert_int_equal(tensor->exponent, -9);
  assert_int_equal(tensor->ndim, 4);
  assert_int_equal(tensor->dims[3], 3);
  assert_int_equal(tensor->dtype, NITI_I8);
  assert_memory_equal(tensor->data, conv, sizeof conv);
  tensor = niti_checkpoint_find(c, "wide");
  assert_int_equal(tensor->dtype, NITI_I16);
  assert_memory_equal(tensor->data, wide, sizeof wide);
  tensor = niti_checkpoint_find(c, "state");
  assert_int_equal(tensor->ndim, 0);
  assert_int_equal(tensor->exponent, 7);
  assert_memory_equal(tensor->data, state64, sizeof state64);
  assert_null(niti_checkpoint_find(c, "fc.weight.exponent"));
  assert_true(step_of(c) == 123456789012345);
  assert_int_equal(c->value_count, 4);
  assert_string_equal(niti_checkpoint_get(c, "model"), "input: 1x1x3\nname: \"\xc3\xa9\"\n");
  assert_string_equal(niti_checkpoint_get(c, "note"), "second");
  assert_string_equal(niti_checkpoint_get(c, "empty"), "");
  assert_string_equal(niti_checkpoint_source(c), at("c"));
  assert_int_equal(c->version, NITI_CHECKPOINT_VERSION);
  const char *none;
  check_fails(niti_checkpoint_want(&none, c, "hash"), NITI_ERROR_FORMAT, at("c"), "'hash' is missing"); /* the format's own */
  check_ok(niti_checkpoint_hash(saved, before));
  check_ok(niti_checkpoint_hash(c, after));
  assert_string_equal(before, after);
  niti_checkpoint_close(saved);
  niti_checkpoint_close(c);
}

static void test_checkpoint_empty(void **state) {
  (void)state;
  NitiCheckpoint *saved, *c;
  check_ok(niti_checkpoint_open(&saved));
  check_ok(niti_checkpoint_save(saved, at("c")));
  check_ok(niti_checkpoint_load(&c, at("c")));
  assert_int_equal(c->tensor_count, 0);
  assert_int_equal(c->value_count, 0);
  niti_checkpoint_close(saved);
  niti_checkpoint_close(c);
}

/* The hash is of the weights: not of state, of numbers, or of the order of adding. */
static void test_hash_covers_weights(void **state) {
  (void)state;
  /* sha256 of "w\0", ndim 1, dim 2, exponent -1, mantissas 1 -1, as printf '...' | sha256sum gives it */
  static const char expected[] = "00bba89e19ec2f518f3b8f56aa1aa1c81e2fdd2d1ff4d4aff78874f3c516d388";
  int8_t w[2] = {1, -1}, v[1] = {5};
  int32_t s[1] = {1};
  char first[65], second[65];
  NitiCheckpoint *a, *b;
  check_ok(niti_checkpoint_open(&a));
  check_ok(niti_checkpoint_open(&b));
  check_ok(niti_checkpoint_add(a, "w", NITI_I8, 1, (const uint32_t[]){2}, -1, w));
  check_ok(niti_checkpoint_hash(a, first));
  assert_string_equal(first, expected);
  check_ok(niti_checkpoint_add(a, "s", NITI_I32, 1, (const uint32_t[]){1}, 0, s));
  set_step(a, 5);
  check_ok(niti_checkpoint_hash(a, first));
  assert_string_equal(first, expected);
  check_ok(niti_checkpoint_add(a, "v", NITI_I8, 1, (const uint32_t[]){1}, 0, v));
  check_ok(niti_checkpoint_add(b, "v", NITI_I8, 1, (const uint32_t[]){1}, 0, v));
  check_ok(niti_checkpoint_add(b, "w", NITI_I8, 1, (const uint32_t[]){2}, -1, w));
  check_ok(niti_checkpoint_hash(a, first));
  check_ok(niti_checkpoint_hash(b, second));
  assert_string_equal(first, second);
  assert_string_not_equal(first, expected);
  niti_checkpoint_close(a);
  niti_checkpoint_close(b);
}

/* Values such as paths: the file holds them as text, and loading gives their bytes back. */
static void test_values_of_any_bytes(void **state) {
  (void)state;
  static const char *const values[] = {"caf\xe9/\\x41\nb", "caf\xc3\xa9/\\x41\nb"};
  NitiCheckpoint *c;
  size_t size;
  check_ok(niti_checkpoint_open(&c));
  check_ok(niti_checkpoint_set(c, "data", values[0]));
  check_ok(niti_checkpoint_set(c, "model", values[1]));
  check_ok(niti_checkpoint_save(c, at("c")));
  niti_checkpoint_close(c);
  char *text = get_file(at("c"), &size);
  assert_non_null(find_bytes(text, size, "\"data.escaped\":\"caf\\\\xE9/\\\\x5Cx41\\\\x0Ab\""));
  free(text);
  check_ok(niti_checkpoint_load(&c, at("c")));
  assert_string_equal(niti_checkpoint_get(c, "data"), values[0]);
  assert_string_equal(niti_checkpoint_get(c, "model"), values[1]);
  assert_int_equal(c->value_count, 2);
  niti_checkpoint_close(c);
}

/* A key that is there already, one of the format's own and an escaped one cannot be escaped; nor can a zero byte. The checksum,
 * which is read later, is wrong here; tests/fuzz/corpus/checkpoint has a file whose checksum is right. */
static void test_keys_in_disguise(void **state) {
  (void)state;
  static const char *const keys[] = {"note", "hash", "checksum", "a.escaped", "zero"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; ++i) {
    char from[32], to[32];
    size_t size;
    NitiCheckpoint *c = make_checkpoint(1);
    (void)snprintf(from, sizeof from, "%s.escapes", keys[i]);
    (void)snprintf(to, sizeof to, "%s.escaped", keys[i]);
    check_ok(niti_checkpoint_set(c, from, "caf\\x00"));
    check_ok(niti_checkpoint_save(c, at("c")));
    niti_checkpoint_close(c);
    char *bytes = get_file(at("c"), &size), *found = find_bytes(bytes, size, from);
    assert_non_null(found);
    memcpy(found, to, strlen(to));
    put_file(at("c"), bytes, size);
    free(bytes);
    check_fails(niti_checkpoint_load(&c, at("c")), NITI_ERROR_FORMAT, to, i < 4 ? "reserved or taken" : "zero byte");
  }
}

static void test_checkpoint_refuses_content(void **state) {
  (void)state;
  int8_t w[2] = {0, -128};
  const uint32_t dims[NITI_DIMS_MAX + 1] = {2};
  NitiCheckpoint *c;
  check_ok(niti_checkpoint_open(&c));
  check_fails(niti_checkpoint_add(c, "a.exponent", NITI_I8, 1, dims, 0, w), NITI_ERROR_ARGUMENT, "a.exponent", "reserved");
  check_fails(niti_checkpoint_add(c, "", NITI_I8, 1, dims, 0, w), NITI_ERROR_ARGUMENT, "''", "empty");
  check_fails(niti_checkpoint_add(c, "a", NITI_I8, NITI_DIMS_MAX + 1, dims, 0, w), NITI_ERROR_ARGUMENT, "'a'", "dimensions");
  check_fails(niti_checkpoint_set(c, "hash", "x"), NITI_ERROR_ARGUMENT, "hash", "own");
  check_fails(niti_checkpoint_set(c, "a.escaped", "x"), NITI_ERROR_ARGUMENT, "a.escaped", "own");
  check_ok(niti_checkpoint_add(c, "a", NITI_I8, 1, dims, 0, w));
  check_fails(niti_checkpoint_add(c, "a", NITI_I8, 1, dims, 0, w), NITI_ERROR_ARGUMENT, "'a'", "taken");
  check_fails(niti_checkpoint_save(c, at("c")), NITI_ERROR_ARGUMENT, at("c"), "element 1 is -128");
  w[1] = 0;
  check_ok(niti_checkpoint_set(c, "\xc3", "a"));
  check_fails(niti_checkpoint_save(c, at("c")), NITI_ERROR_ARGUMENT, at("c"), "UTF-8");
  assert_int_equal(count_files(), 0);
  niti_checkpoint_close(c);
}

static void test_checkpoint_truncated_anywhere(void **state) {
  (void)state;
  NitiCheckpoint *c;
  size_t size;
  save_to(1, at("c"));
  char *bytes = get_file(at("c"), &size);
  for (size_t length = 0; length < size; ++length) {
    put_file(at("t"), bytes, length);
    check_fails(niti_checkpoint_load(&c, at("t")), NITI_ERROR_FORMAT, at("t"), ":");
    assert_null(c);
  }
  bytes = realloc(bytes, size + 1);
  assert_non_null(bytes);
  bytes[size] = 0;
  put_file(at("t"), bytes, size + 1);
  check_fails(niti_checkpoint_load(&c, at("t")), NITI_ERROR_FORMAT, at("t"), "no tensor");
  free(bytes);
}

static void test_checkpoint_flipped_anywhere(void **state) {
  (void)state;
  NitiCheckpoint *c;
  size_t size;
  save_to(1, at("c"));
  char *bytes = get_file(at("c"), &size);
  for (size_t bit = 0; bit < 8 * size; ++bit) {
    bytes[bit / 8] = (char)(bytes[bit / 8] ^ (1 << (bit % 8)));
    put_file(at("t"), bytes, size);
    const NitiStatus status = niti_checkpoint_load(&c, at("t"));
    if (status != NITI_ERROR_FORMAT) fail_msg("bit %zu of byte %zu: status %d", bit % 8, bit / 8, (int)status);
    bytes[bit / 8] = (char)(bytes[bit / 8] ^ (1 << (bit % 8)));
  }
  free(bytes);
}

/* Every other value of every byte of the header, its length included: rejected, and the message says where. */
static void test_checkpoint_header_bytes(void **state) {
  (void)state;
  NitiCheckpoint *c; /* small: each of its header's bytes is 255 files */
  size_t size, cases = 0;
  check_ok(niti_checkpoint_open(&c));
  check_ok(niti_checkpoint_add(c, "w", NITI_I8, 1, (const uint32_t[]){5}, 3, fc));
  set_step(c, 1);
  check_ok(niti_checkpoint_save(c, at("c")));
  niti_checkpoint_close(c);
  uint8_t *bytes = (uint8_t *)get_file(at("c"), &size);
  const size_t header = 8 + ((size_t)bytes[0] | (size_t)bytes[1] << 8);
  const int fd = open(at("c"), O_WRONLY);
  assert_true(fd >= 0 && header < size);
  for (size_t i = 0; i < header; ++i) {
    for (unsigned other = 1; other < 256; ++other, ++cases) {
      const uint8_t value = (uint8_t)(bytes[i] ^ other);
      assert_int_equal(pwrite(fd, &value, 1, (off_t)i), 1);
      const NitiStatus status = niti_checkpoint_load(&c, at("c"));
      const char *why = niti_error();
      if (status != NITI_ERROR_FORMAT || !(strstr(why, "byte") || strstr(why, "tensor '") || strstr(why, "__metadata__")))
        fail_msg("byte %zu: %u instead of %u: status %d: %s", i, value, bytes[i], (int)status, why);
    }
    assert_int_equal(pwrite(fd, &bytes[i], 1, (off_t)i), 1);
  }
  check_ok(niti_checkpoint_load(&c, at("c")));
  niti_checkpoint_close(c);
  assert_true(cases == 255 * header);
  (void)close(fd);
  free(bytes);
}

/* Replaces `from` by `to`, of the same length, in a saved checkpoint. */
static NitiStatus load_edited(const char *from, const char *to) {
  NitiCheckpoint *c;
  size_t size;
  save_to(1, at("c"));
  char *bytes = get_file(at("c"), &size), *found = find_bytes(bytes, size, from);
  assert_non_null(found);
  memcpy(found, to, strlen(from));
  put_file(at("c"), bytes, size);
  free(bytes);
  return niti_checkpoint_load(&c, at("c"));
}

static void test_checkpoint_says_what_is_wrong(void **state) {
  (void)state;
  check_fails(load_edited("\x01\xff\x40", "\x02\xff\x40"), NITI_ERROR_FORMAT, at("c"), "does not have the hash");
  check_fails(load_edited("\x01\xff\x40", "\x80\xff\x40"), NITI_ERROR_FORMAT, "conv.weight", "element 3 is -128");
  check_fails(load_edited("\xf7\xff\xff\xff", "\xf8\xff\xff\xff"), NITI_ERROR_FORMAT, at("c"), "does not have the hash");
  check_fails(load_edited("\"step\":\"1\"", "\"step\":\"2\""), NITI_ERROR_FORMAT, at("c"), "does not have the checksum");
  check_fails(load_edited("\"step\"", "\"stop\""), NITI_ERROR_FORMAT, at("c"), "does not have the checksum");
  check_fails(load_edited("\"hash\"", "\"bash\""), NITI_ERROR_FORMAT, at("c"), "'hash' is missing");
  check_fails(load_edited("\"version\":\"1\"", "\"version\":\"9\""), NITI_ERROR_FORMAT, at("c"), "does not have the checksum");
  check_fails(load_edited("\"format\":\"niti\"", "\"format\":\"nita\""), NITI_ERROR_FORMAT, at("c"), "'nita'");
  check_fails(load_edited("fc.weight.exponent", "fd.weight.exponent"), NITI_ERROR_FORMAT, "'fc.weight'", "exponent");
  check_fails(load_edited("\"format\":\"niti\"", "\"format\":\"a\\nb\""), NITI_ERROR_FORMAT, at("c"), "format is 'a'");
  check_fails(load_edited("\"second\"", "\"sekond\""), NITI_ERROR_FORMAT, at("c"), "does not have the checksum");
}

/* However many bytes fit, a save that fails leaves the old file and nothing else. */
static void test_failed_save_leaves_the_old(void **state) {
  (void)state;
  struct stat info;
  save_to(1, at("c"));
  assert_int_equal(stat(at("c"), &info), 0);
  NitiCheckpoint *c = make_checkpoint(2);
  for (off_t room = 0; room < info.st_size; room += 37) {
    limit_file_size((rlim_t)room);
    const NitiStatus status = niti_checkpoint_save(c, at("c"));
    limit_file_size(RLIM_INFINITY);
    check_fails(status, NITI_ERROR_FILE, at("c"), strerror(EFBIG));
    assert_int_equal(count_files(), 1);
    assert_int_equal(load_step(at("c")), 1);
  }
  check_fails(niti_checkpoint_save(c, at("none/c")), NITI_ERROR_FILE, at("none/c"), strerror(ENOENT));
  check_ok(niti_checkpoint_save(c, at("c")));
  assert_int_equal(load_step(at("c")), 2);
  niti_checkpoint_close(c);
}

static void save_last(uint64_t step) {
  NitiCheckpoint *c = make_checkpoint(step);
  check_ok(niti_checkpoint_save_last(c, folder, NULL, NULL, NULL));
  niti_checkpoint_close(c);
}

/* Other names get the same bytes. Where the first cannot be written, the last checkpoint stays; the other comes after it. */
static void test_other_names_get_the_same(void **state) {
  (void)state;
  NitiCheckpoint *c = make_checkpoint(7);
  check_ok(niti_checkpoint_save_last(c, folder, "epoch-0007.safetensors", "best.safetensors", NULL));
  niti_checkpoint_close(c);
  assert_int_equal(count_files(), 3);
  assert_int_equal(load_step(at("best.safetensors")), 7);
  assert_int_equal(load_step(at("epoch-0007.safetensors")), 7);
  assert_int_equal(load_step(at("last.safetensors")), 7);
  c = make_checkpoint(8);
  check_fails(niti_checkpoint_save_last(c, folder, "none/epoch", "best.safetensors", NULL), NITI_ERROR_FILE, "none/epoch",
              strerror(ENOENT));
  assert_int_equal(load_step(at("last.safetensors")), 7);
  assert_int_equal(load_step(at("best.safetensors")), 7);
  assert_int_equal(count_files(), 3);
  check_fails(niti_checkpoint_save_last(c, folder, NULL, "none/best", NULL), NITI_ERROR_FILE, "none/best", strerror(ENOENT));
  niti_checkpoint_close(c);
  assert_int_equal(load_step(at("last.safetensors")), 8);
  assert_int_equal(load_step(at("previous.safetensors")), 7);
  assert_int_equal(count_files(), 4);
}

static void test_previous_is_kept(void **state) {
  (void)state;
  NitiCheckpoint *c;
  bool previous;
  check_fails(niti_checkpoint_load_last(&c, &previous, folder), NITI_ERROR_FILE, "last.safetensors", strerror(ENOENT));
  save_last(1);
  assert_int_equal(count_files(), 1);
  for (uint64_t step = 2; step < 5; ++step) {
    save_last(step);
    assert_int_equal(count_files(), 2);
    assert_int_equal(load_step(at("last.safetensors")), step);
    assert_int_equal(load_step(at("previous.safetensors")), step - 1);
  }
  /* both names on one file */
  assert_int_equal(unlink(at("previous.safetensors")), 0);
  assert_int_equal(link(at("last.safetensors"), at("previous.safetensors")), 0);
  save_last(5);
  assert_int_equal(count_files(), 2);
  assert_int_equal(load_step(at("last.safetensors")), 5);
  assert_int_equal(load_step(at("previous.safetensors")), 4);

  check_ok(niti_checkpoint_load_last(&c, &previous, folder));
  assert_true(step_of(c) == 5 && !previous);
  niti_checkpoint_close(c);
  assert_int_equal(truncate(at("last.safetensors"), 100), 0);
  check_ok(niti_checkpoint_load_last(&c, &previous, folder));
  assert_true(step_of(c) == 4 && previous);
  assert_non_null(strstr(niti_error(), "last.safetensors"));
  niti_checkpoint_close(c);
  assert_int_equal(truncate(at("previous.safetensors"), 100), 0);
  check_fails(niti_checkpoint_load_last(&c, &previous, folder), NITI_ERROR_FORMAT, "last.safetensors", "header");
  /* what cannot be opened may be intact */
  save_last(6);
  save_last(7);
  assert_int_equal(rename(at("last.safetensors"), at("away")), 0);
  assert_int_equal(mkdir(at("last.safetensors"), 0777), 0);
  check_fails(niti_checkpoint_load_last(&c, &previous, folder), NITI_ERROR_FILE, "last.safetensors",
              "remove it: another checkpoint takes its place");
  assert_int_equal(rmdir(at("last.safetensors")), 0);
  check_ok(niti_checkpoint_load_last(&c, &previous, folder));
  assert_true(step_of(c) == 6 && previous);
  niti_checkpoint_close(c);
}

static int guard_turn; /* which question is answered with a failure, from 0 */

static NitiStatus answer(const void *context) {
  assert_ptr_equal(context, folder);
  return guard_turn-- == 0 ? niti_fail(NITI_ERROR_FILE, "%s: is another", folder) : NITI_OK;
}

/* It may refuse each of the files before it is begun and before it is in place: what was there stays, and no other file. */
static void test_guard(void **state) {
  (void)state;
  const NitiSaveGuard guard = {answer, folder};
  save_last(1);
  for (int turn = 5; turn >= 0; --turn) {
    NitiCheckpoint *c = make_checkpoint(2);
    guard_turn = turn;
    check_fails(niti_checkpoint_save_last(c, folder, "epoch-0002.safetensors", "best.safetensors", &guard), NITI_ERROR_FILE,
                folder, "is another");
    niti_checkpoint_close(c);
    assert_int_equal(load_step(at("last.safetensors")), turn < 4 ? 1 : 2);
    assert_int_equal(count_files(), turn < 2 ? 1 : turn < 4 ? 2 : 3);
    if (turn >= 2) assert_int_equal(unlink(at("epoch-0002.safetensors")), 0);
    if (turn >= 4) assert_int_equal(rename(at("previous.safetensors"), at("last.safetensors")), 0);
  }
}

/* A damaged `last` must not take the place of a good `previous` before the new `last` is there: stopped at just that point, by a
 * folder where `previous` should go, the new one is in place. */
static void test_former_is_named_last(void **state) {
  (void)state;
  save_last(1);
  assert_int_equal(mkdir(at("previous.safetensors"), 0777), 0);
  NitiCheckpoint *c = make_checkpoint(2);
  check_fails(niti_checkpoint_save_last(c, folder, NULL, NULL, NULL), NITI_ERROR_FILE, "previous.safetensors", strerror(EISDIR));
  niti_checkpoint_close(c);
  assert_int_equal(load_step(at("last.safetensors")), 2);
  assert_int_equal(count_files(), 2);
  assert_int_equal(rmdir(at("previous.safetensors")), 0);
}

/* A process that saves all the time is killed at 20 moments: a whole checkpoint is always there, and only grows newer. */
static void test_killed_save(void **state) {
  (void)state;
  uint64_t newest = 0;
  save_last(0);
  for (unsigned moment = 0; moment < 20; ++moment) {
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
      NitiCheckpoint *c = make_checkpoint(newest);
      for (uint64_t next = newest;; set_step(c, ++next))
        if (niti_checkpoint_save_last(c, folder, NULL, NULL, NULL) != NITI_OK) _exit(1);
    }
    (void)usleep(2000 + moment * 1237 % 9000);
    int result;
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFSIGNALED(result));
    NitiCheckpoint *c;
    bool previous;
    check_ok(niti_checkpoint_load_last(&c, &previous, folder));
    assert_false(previous);
    assert_true(step_of(c) >= newest);
    newest = step_of(c);
    niti_checkpoint_close(c);
  }
  save_last(newest + 1); /* takes over what the killed process left */
  assert_int_equal(count_files(), 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_checkpoint_round_trip, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_checkpoint_empty, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_hash_covers_weights, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_values_of_any_bytes, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_keys_in_disguise, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_checkpoint_refuses_content, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_checkpoint_truncated_anywhere, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_checkpoint_flipped_anywhere, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_checkpoint_header_bytes, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_checkpoint_says_what_is_wrong, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_failed_save_leaves_the_old, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_other_names_get_the_same, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_previous_is_kept, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_guard, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_former_is_named_last, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_killed_save, make_folder, remove_folder),
  };
  return cmocka_run_group_tests_name("io_checkpoint", tests, NULL, NULL);
}
