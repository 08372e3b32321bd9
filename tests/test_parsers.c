/* Parsers where memory runs out: every allocation of each is failed in turn, those of the libraries below them too. They must end
 * with a status and a message, without a leak or a crash. And what no other test of theirs reaches. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "config/yaml.h"
#include "data/array.h"
#include "data/image.h"
#include "data_open.h"
#include "fail_memory.h"
#include "io/checkpoint.h"
#include "platform/bytes.h"
#include "platform/text.h"
#include "train/recipe.h"

/* A file that changes at the first allocation of so many bytes: that of a reader which has looked at the file's size. */
static const char *changing;
static off_t becomes;
enum { CIFAR_RECORD = 3073, READ_BYTES = CIFAR_RECORD + 2 };

static void change_file(size_t bytes) {
  const char *path = changing;
  if (!path || bytes != READ_BYTES) return;
  changing = NULL;
  if (truncate(path, becomes) != 0) abort();
}

/* How often the next preads are interrupted; then they fail where pread_error is set. */
static int interruptions, pread_error;

#if FAILS
EXPORTED ssize_t pread(int fd, void *to, size_t count, off_t at) {
  if (interruptions > 0) {
    --interruptions;
    errno = EINTR;
    return -1;
  }
  if (pread_error == 0) return (ssize_t)syscall(SYS_pread64, fd, to, count, at);
  errno = pread_error;
  return pread_error < 0 ? 0 : -1; /* negative: the file ends */
}
#endif

/* ---- what is parsed ---- */

static const char yaml[] =
    "a: {b: [1, 2, 3, 4, 5, 6, 7, 8, 9], \"c d\": ~}\nlist:\n  - x: |\n      text\n    y: [[1], {z: [2]}]\n  - word\nempty: []\n";

static NitiStatus parse_yaml(const char *path) {
  NitiYamlDocument *document;
  char *text = NULL;
  NITI_TRY(niti_yaml_read(&document, path));
  NitiStatus status = niti_yaml_set(document, "a.b.0={new: [1, 2]}");
  if (status == NITI_OK) status = niti_yaml_set(document, "fresh.deep.key=1");
  if (status == NITI_OK) niti_yaml_put(document, niti_yaml_root(document), "made", niti_yaml_printf(document, "%d", 7));
  if (status == NITI_OK) niti_yaml_put(document, niti_yaml_root(document), "list", niti_yaml_sequence(document));
  if (status == NITI_OK) niti_yaml_append(document, niti_yaml_get(niti_yaml_root(document), "list"), niti_yaml_mapping(document));
  if (status == NITI_OK) status = niti_yaml_write(&text, document, niti_yaml_root(document));
  free(text);
  niti_yaml_close(document);
  return status;
}

/* Texts larger than a document's pieces of memory and the emitter's buffer, so that each is an allocation and each is written
 * alone. */
static char big[20000];

static NitiStatus write_big(const char *path) {
  NitiYamlDocument *document;
  static char edit[5 * sizeof big];
  char *text = NULL;
  (void)path;
  NITI_TRY(niti_yaml_open(&document));
  NitiYaml *root = niti_yaml_root(document), *list = niti_yaml_sequence(document), *map = niti_yaml_mapping(document);
  (void)snprintf(edit, sizeof edit, "a.%s=1", big);
  NitiStatus status = niti_yaml_set(document, edit);
  if (status == NITI_OK) (void)snprintf(edit, sizeof edit, "b=[%s, {c: %s, d: [%s]}, [%s]]", big, big, big, big);
  if (status == NITI_OK) status = niti_yaml_set(document, edit);
  for (int i = 0; i < 3; ++i) niti_yaml_append(document, list, niti_yaml_scalar(document, big));
  niti_yaml_put(document, map, big, list);
  niti_yaml_put(document, root, "map", map);
  niti_yaml_put(document, root, big, niti_yaml_scalar(document, big));
  if (status == NITI_OK) status = niti_yaml_write(&text, document, root);
  free(text);
  niti_yaml_close(document);
  return status;
}

static NitiStatus new_document(const char *path) {
  NitiYamlDocument *document;
  (void)path;
  NITI_TRY(niti_yaml_open(&document));
  niti_yaml_close(document);
  return NITI_OK;
}

static NitiStatus parse_recipe(const char *path) {
  NitiRecipe *recipe;
  NITI_TRY(niti_recipe_load(&recipe, path, (const char *const[]){"batch=4"}, 1));
  niti_recipe_close(recipe);
  return NITI_OK;
}

static NitiStatus load_checkpoint(const char *path) {
  NitiCheckpoint *checkpoint;
  NITI_TRY(niti_checkpoint_load(&checkpoint, path));
  char copy[512];
  (void)snprintf(copy, sizeof copy, "%s.copy", path);
  const NitiStatus status = niti_checkpoint_save(checkpoint, copy);
  niti_checkpoint_close(checkpoint);
  return status;
}

static NitiStatus load_weights(const char *path) {
  NitiCheckpoint *checkpoint;
  NITI_TRY(niti_checkpoint_load_weights(&checkpoint, NULL, path));
  niti_checkpoint_close(checkpoint);
  return NITI_OK;
}

static NitiStatus save_last(const char *path) {
  static int8_t w[2] = {1, 2};
  NitiCheckpoint *checkpoint;
  NITI_TRY(niti_checkpoint_open(&checkpoint));
  NitiStatus status = niti_checkpoint_add(checkpoint, "w", NITI_I8, 1, (const uint32_t[]){2}, 0, w);
  if (status == NITI_OK) status = niti_checkpoint_set(checkpoint, "k", "caf\xe9");
  if (status == NITI_OK) status = niti_checkpoint_set(checkpoint, "k", "b\xe9");
  if (status == NITI_OK) status = niti_checkpoint_save_last(checkpoint, path, "before", "after", NULL);
  niti_checkpoint_close(checkpoint);
  return status;
}

static NitiStatus load_last(const char *path) {
  NitiCheckpoint *checkpoint;
  NITI_TRY(niti_checkpoint_load_last(&checkpoint, NULL, path));
  niti_checkpoint_close(checkpoint);
  return NITI_OK;
}

static NitiDataKind kind;

static NitiStatus open_set(const char *path) {
  const NitiDataOptions options = {.kind = kind};
  NitiDataset *dataset;
  NITI_TRY(niti_dataset_open(&dataset, path, &options, NULL));
  niti_dataset_close(dataset);
  return NITI_OK;
}

static NitiStatus decode(const char *path) {
  uint8_t pixels[4 * 4 * 3];
  return niti_image_read(path, NULL, (NitiShape){1, 4, 4, 3}, pixels);
}

static void fail_each_of_set(const char *what, NitiDataKind its, const char *path) {
  kind = its;
  fail_each(what, open_set, path);
}

static void refused(NitiStatus status, NitiStatus expected, const char *a, const char *b) {
  check_error((int)status, (int)expected, niti_error(), a, b);
}

/* ---- the tests ---- */

static uint8_t low(size_t i) { return (uint8_t)(i % 3); }
static void put_text(const char *path, const char *text) { put_file(path, text, strlen(text)); }

static void texts_without_memory(void **state) {
  (void)state;
  char *dir = make_temp();
  put_text(path_of("%s/a.yaml", dir), yaml);
  put_text(path_of("%s/recipe.yaml", dir),
           "name: r\nmodel: {file: model.yaml, classes: 3}\ndata: {mean: [0.5], std: [0.25]}\n"
           "update: {kind: sgd, lr: [{epoch: 0, lr: 0.1}, {at: 50%, lr: 0.01}], warmup: {step: 3}}\nfreeze: []\n");
  put_text(path_of("%s/model.yaml", dir),
           "name: m\ninput: [8, 8, 1]\nclasses: 2\nblocks: {b: [relu]}\nlayers:\n  - conv: {out: 2, kernel: 3, name: c}\n"
           "  - block: b\n  - repeat: {times: 2, layers: [{residual: {body: [{conv: {out: 2, kernel: 1}}]}}]}\n"
           "  - flatten\n  - linear: {out: classes}\n");
  fail_each("YAML", parse_yaml, path_of("%s/a.yaml", dir));
  fail_each("a new document", new_document, NULL);
  memset(big, 'x', sizeof big - 1);
  fail_each("large texts", write_big, NULL);
  fail_each("a recipe", parse_recipe, path_of("%s/recipe.yaml", dir));
  remove_temp(dir);
}

static void checkpoints_without_memory(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *path = path_of("%s/c.safetensors", dir);
  static int8_t w[3] = {1, 2, 3};
  static int16_t v[2] = {1, 2};
  NitiCheckpoint *c;
  assert_int_equal(niti_checkpoint_open(&c), NITI_OK);
  assert_int_equal(niti_checkpoint_add(c, "a.weight", NITI_I8, 2, (const uint32_t[]){3, 1}, 0, w), NITI_OK);
  assert_int_equal(niti_checkpoint_add(c, "b.weight", NITI_I16, 1, (const uint32_t[]){2}, -3, v), NITI_OK);
  assert_int_equal(niti_checkpoint_set(c, "data", "caf\xe9"), NITI_OK);
  assert_int_equal(niti_checkpoint_save(c, path), NITI_OK);
  niti_checkpoint_close(c);
  fail_each("a checkpoint", load_checkpoint, path);
  fail_each("saving", save_last, dir);
  fail_each("the last checkpoint", load_last, dir);
  remove_temp(dir);
}

/* A file of another tool: weights with exponents of every integer type, and a tensor without. */
static void put_foreign(const char *path, const char *dtype, const uint8_t *exponent, size_t bytes) {
  char header[512];
  uint8_t file[600] = {0};
  const int length =
      snprintf(header, sizeof header,
               "{\"w\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]},\"alone\":{\"dtype\":\"F32\",\"shape\":[1],"
               "\"data_offsets\":[2,6]},\"w.exponent\":{\"dtype\":\"%s\",\"shape\":[1],\"data_offsets\":[6,%zu]}}\n",
               dtype, 6 + bytes);
  file[0] = (uint8_t)length;
  file[1] = (uint8_t)(length >> 8);
  memcpy(file + 8, header, (size_t)length);
  memcpy(file + 8 + length + 6, exponent, bytes);
  put_file(path, file, 8 + (size_t)length + 6 + bytes);
}

static void weights_of_other_tools(void **state) {
  static const char *const dtypes[] = {"I8", "I16", "I32", "I64"};
  static const uint8_t minus_three[8] = {0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, far[8] = {0, 0, 0, 1};
  (void)state;
  char *dir = make_temp();
  const char *path = path_of("%s/w.safetensors", dir);
  NitiCheckpoint *c;
  for (int i = 0; i < 4; ++i) {
    bool intact = true;
    put_foreign(path, dtypes[i], minus_three, (size_t)1 << i);
    if (niti_checkpoint_load_weights(&c, &intact, path) != NITI_OK) fail_msg("%s: %s", dtypes[i], niti_error());
    assert_false(intact);
    assert_int_equal(c->tensor_count, 1);
    assert_int_equal(c->tensors[0].exponent, -3);
    niti_checkpoint_close(c);
  }
  put_foreign(path, "I32", minus_three, 4);
  fail_each("weights", load_weights, path);
  put_foreign(path, "F32", minus_three, 4);
  refused(niti_checkpoint_load_weights(&c, NULL, path), NITI_ERROR_FORMAT, "w.exponent", "one integer expected");
  put_foreign(path, "I64", far, 8);
  refused(niti_checkpoint_load_weights(&c, NULL, path), NITI_ERROR_FORMAT, "'w'", "exponent 16777216");
  put_text(path, "\x02\0\0\0\0\0\0\0{}");
  remove_temp(dir);
}

static void data_sets_without_memory(void **state) {
  (void)state;
  char *dir = put_idx_folder(6, 3, 4, low, low);
  put_text(path_of("%s/classes.txt", dir), "one\ntwo\nthree\n");
  fail_each_of_set("IDX", NITI_DATA_IDX, dir);
  remove_temp(dir);
  dir = make_temp();
  const uint32_t dims[3] = {6, 4, 4};
  put_idx(path_of("%s/train-images-idx3-ubyte.gz", dir), 3, dims, low, true);
  put_idx(path_of("%s/train-labels-idx1-ubyte.gz", dir), 1, dims, low, true);
  fail_each_of_set("packed IDX", NITI_DATA_IDX, dir);
  remove_temp(dir);
  dir = make_temp();
  uint8_t record[3073] = {7};
  for (int i = 1; i <= 5; ++i) put_file(path_of("%s/data_batch_%d.bin", dir, i), record, sizeof record);
  put_file(path_of("%s/test_batch.bin", dir), record, sizeof record);
  fail_each_of_set("CIFAR", NITI_DATA_CIFAR10, dir);
  remove_temp(dir);
  dir = make_temp();
  put_text(path_of("%s/train_x.csv", dir), "a,b\n1,2\n3,4\n");
  put_text(path_of("%s/train_y.csv", dir), "0\n1\n");
  fail_each_of_set("CSV", NITI_DATA_CSV, dir);
  remove_temp(dir);
  dir = put_folder("test");
  fail_each("a PNG", decode, path_of("%s/train/a/z.png", dir));
  fail_each("a JPEG", decode, path_of("%s/test/a/x.jpeg", dir));
  remove_temp(dir);
}

static void bytes_in_the_order_of_files(void **state) {
  (void)state;
  uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8}, buffer[NITI_BYTES_PIECE];
  niti_bytes_reverse(bytes, 4, 2);
  assert_memory_equal(bytes, ((const uint8_t[]){2, 1, 4, 3, 6, 5, 8, 7}), 8);
  niti_bytes_reverse(bytes, 1, 8);
  assert_memory_equal(bytes, ((const uint8_t[]){7, 8, 5, 6, 3, 4, 1, 2}), 8);
  niti_bytes_reverse(bytes, 8, 1);
  const uint32_t words[] = {0x04030201, 0x08070605};
  size_t count = 0;
  const uint8_t *piece = niti_bytes_piece(&count, buffer, words, 4, 8, 4);
  assert_int_equal(count, 4);
  assert_memory_equal(piece, ((const uint8_t[]){5, 6, 7, 8}), 4);
  uint32_t word;
  memcpy(&word, piece, 4);
  niti_bytes_little(&word, 1, 4);
  assert_int_equal(word, 0x08070605);
}

/* ---- rare ways ---- */

static void values_of_the_wrong_kind(void **state) {
  (void)state;
  static const char text[] =
      "\xef\xbb\xbf"
      "quoted: \"5\"\nlist: [1]\nmap: {a: 1}\nnothing: ~\nnull: null\nempty:\nlong: "
      "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrs\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\ndel: \"a\\x7f\"\nmany: "
      "12345678901234567890123\n"
      "point: 1.\nbig: 99999999999.5\nminus: -1\nword: nearest\nshare: 50%\nname: \"\"\n";
  static const char *const names[] = {"quoted", "list",  "map", "nothing", "null", "empty", "long", "del",
                                      "many",   "point", "big", "minus",   "word", "share", "name"};
  static const char *const choices[] = {"one", "two", NULL}, *const single[] = {"one", NULL}, *const keys[] = {"a", NULL};
  NitiYamlDocument *document;
  assert_int_equal(niti_yaml_parse(&document, text, "text"), NITI_OK);
  const NitiYaml *root = niti_yaml_root(document);
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    const NitiYaml *node = niti_yaml_get(root, names[i]);
    char found[NITI_YAML_FOUND_MAX], name[8];
    int32_t value;
    int64_t decimal;
    uint64_t large;
    bool flag;
    assert_non_null(node);
    assert_true(strlen(niti_yaml_found(found, node)) < sizeof found);
    assert_true(niti_text_is_utf8(found));
    assert_int_equal(niti_yaml_is_null(node), i >= 3 && i <= 5);
    assert_int_equal(niti_yaml_is_word(node, "5"), i == 0);
    assert_int_equal(niti_yaml_int(&value, node, "it", 1, 5), NITI_ERROR_FORMAT);
    assert_int_equal(niti_yaml_uint64(&large, node, "it", 5), NITI_ERROR_FORMAT);
    assert_int_equal(niti_yaml_bool(&flag, node, "it"), NITI_ERROR_FORMAT);
    if (niti_yaml_decimal(&decimal, node, "it", 2, 0, 99) != NITI_ERROR_FORMAT) fail_msg("%s", names[i]);
    assert_int_equal(niti_yaml_millionths(&value, node, "it", 0, 99), NITI_ERROR_FORMAT);
    if (niti_yaml_share(&value, node, "it", 0, 99) != NITI_ERROR_FORMAT) fail_msg("%s", names[i]);
    assert_int_equal(niti_yaml_choice(&value, node, "it", choices), NITI_ERROR_FORMAT);
    assert_int_equal(niti_yaml_choice(&value, node, "it", single), NITI_ERROR_FORMAT);
    if (niti_yaml_name(name, sizeof name, node, "it") == NITI_OK) assert_true(strlen(name) > 0);
    assert_int_equal(niti_yaml_want_keys(node, "it", keys) == NITI_OK, i == 2);
    assert_int_equal(niti_yaml_want_sequence(node, "it") == NITI_OK, i == 1);
  }
  char *written = NULL;
  assert_int_equal(niti_yaml_write(&written, document, root), NITI_OK);
  free(written);
  assert_int_equal(niti_yaml_write(&written, document, NULL), NITI_ERROR_MEMORY);
  niti_yaml_append(document, NULL, NULL);
  niti_yaml_put(document, NULL, "a", NULL);
  niti_yaml_close(document);
  niti_yaml_close(NULL);
}

/* The text in the file, once, by another of its length. */
static void edit(const char *path, const char *from, const char *to) {
  size_t size = 0, at = 0;
  uint8_t *bytes = get_file(path, &size);
  assert_int_equal(strlen(from), strlen(to));
  while (at + strlen(from) <= size && memcmp(bytes + at, from, strlen(from)) != 0) ++at;
  assert_true(at + strlen(from) <= size);
  memcpy(bytes + at, to, strlen(to));
  put_file(path, bytes, size);
  free(bytes);
}

/* The messages give what was found, so that a file can be put right by it. */
static void checkpoints_by_hand(void **state) {
  (void)state;
  static int8_t w[3] = {1, 2, 3};
  char *dir = make_temp(), stated[65], found[65];
  const char *path = path_of("%s/c.safetensors", dir);
  NitiCheckpoint *c;
  assert_int_equal(niti_checkpoint_open(&c), NITI_OK);
  assert_string_equal(niti_checkpoint_source(c), "checkpoint");
  assert_int_equal(niti_checkpoint_add(c, "x", NITI_I8, -1, NULL, 0, w), NITI_ERROR_ARGUMENT);
  assert_int_equal(niti_checkpoint_add(c, "a.weight", NITI_I8, 1, (const uint32_t[]){3}, 0, w), NITI_OK);
  assert_int_equal(niti_checkpoint_save(c, path), NITI_OK);
  edit(path, "\"version\":\"1\"", "\"version\":\"7\"");
  NitiCheckpoint *loaded;
  assert_int_equal(niti_checkpoint_load(&loaded, path), NITI_ERROR_FORMAT);
  assert_int_equal(sscanf(strstr(niti_error(), "states: "), "states: %64s stated, %64s found", stated, found), 2);
  edit(path, stated, found);
  refused(niti_checkpoint_load(&loaded, path), NITI_ERROR_UNSUPPORTED, "version is '7'", "a later niti");
  assert_int_equal(niti_checkpoint_add(c, "bbbb.weight", NITI_I8, 1, (const uint32_t[]){3}, 0, w), NITI_OK);
  assert_int_equal(niti_checkpoint_save(c, path), NITI_OK);
  edit(path, "\"bbbb.weight\"", "\"b2.exponent\"");
  refused(niti_checkpoint_load(&loaded, path), NITI_ERROR_FORMAT, "3 exponents for 1 tensors", "byte 8");
  put_file(path, "\x02\0\0\0\0\0\0\0{}", 10);
  refused(niti_checkpoint_load_weights(&loaded, NULL, path), NITI_ERROR_FORMAT, "holds no weights", path);
  niti_checkpoint_close(c);
  niti_checkpoint_close(NULL);
  remove_temp(dir);
}

static void cifar_that_changes(void **state) {
  (void)state;
  static const struct {
    off_t before, after;
    const char *why;
  } cases[] = {{3073, 3074, "expected a whole record"}, {3073, 2 * 3073, "grew while"}, {2 * 3073, 3073, "shrank while"}};
  static const uint8_t record[3073] = {7};
  char *dir = make_temp();
  for (int i = 1; i <= 5; ++i) put_file(path_of("%s/data_batch_%d.bin", dir, i), record, sizeof record);
  char *last = strdup(path_of("%s/data_batch_5.bin", dir));
  const NitiDataRequest request = {.need = NITI_SPLIT_BIT(NITI_TRAIN)};
  assert_non_null(last);
  NitiDataset *set;
  before_realloc = change_file;
  for (size_t i = 0; can_fail() && i < sizeof cases / sizeof *cases; ++i) {
    assert_int_equal(truncate(last, cases[i].before), 0);
    becomes = cases[i].after;
    changing = last;
    refused(niti_dataset_open(&set, dir, NULL, &request), NITI_ERROR_FORMAT, dir, cases[i].why);
  }
  if (truncate(last, (off_t)3073 * INT32_MAX) == 0) /* where a file may be so large: it holds nothing */
    refused(niti_dataset_open(&set, dir, NULL, &request), NITI_ERROR_FORMAT, dir, "too many images");
  assert_int_equal(unlink(last), 0);
  refused(niti_dataset_open(&set, dir, NULL, &request), NITI_ERROR_FILE, "data_batch_5.bin", "not found");
  put_dir(last);
  refused(niti_dataset_open(&set, dir, NULL, &request), NITI_ERROR_FILE, "data_batch_5.bin", "a regular file");
  free(last);
  remove_temp(dir);
}

/* Files of the system that cannot be read or mapped. */
static void files_that_fail(void **state) {
  (void)state;
  char *dir = put_idx_folder(6, 3, 4, low, low);
  NitiDataset *set;
  NitiArray array;
  assert_int_equal(unlink(path_of("%s/train-labels-idx1-ubyte", dir)), 0);
  if (symlink("/proc/self/mem", path_of("%s/train-labels-idx1-ubyte", dir)) == 0 && access("/proc/self/mem", R_OK) == 0)
    refused(niti_dataset_open(&set, dir, NULL, NULL), NITI_ERROR_FILE, "train-labels", "cannot read");
  static const char unmapped[] = "/sys/kernel/mm/transparent_hugepage/enabled";
  if (access(unmapped, R_OK) == 0) {
    refused(niti_npy_read(&array, unmapped), NITI_ERROR_FILE, unmapped, "mapped into memory");
    niti_array_close(&array);
  }
  char odd[64] = "\x93NUMPY\1\0\x2f";
  (void)snprintf(odd + 10, sizeof odd - 10, "{'descr':'<i2','fortran_order':False,'shape':(1,)}");
  odd[8] = 51;
  put_file(path_of("%s/odd.npy", dir), odd, 10 + 51 + 2);
  refused(niti_npy_read(&array, path_of("%s/odd.npy", dir)), NITI_ERROR_FORMAT, "odd.npy", "not aligned");
  niti_array_close(&array);
  remove_temp(dir);
}

static void edits_that_are_refused(void **state) {
  (void)state;
  static const char *const bad[] = {"list.1234567=1",
                                    "list.x=1",
                                    "list.7=1",
                                    "list.0.deep=1",
                                    "a=",
                                    "=1",
                                    "a",
                                    ".=1",
                                    "a..b=1",
                                    "a=[",
                                    "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q=1"};
  NitiYamlDocument *document;
  assert_int_equal(niti_yaml_parse(&document, "list: [1, 2]\nnone: ~\nword: 1\n", "text"), NITI_OK);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) assert_int_equal(niti_yaml_set(document, bad[i]), NITI_ERROR_ARGUMENT);
  assert_int_equal(niti_yaml_set(document, "none.key=1"), NITI_OK);
  assert_int_equal(niti_yaml_set(document, "list.1={a: 1}"), NITI_OK);
  assert_int_equal(niti_yaml_set(document, "list.1.a=2"), NITI_OK);
  for (int i = 0; i < NITI_YAML_KEYS_MAX; ++i) assert_int_equal(niti_yaml_set(document, path_of("full.k%d=1", i)), NITI_OK);
  refused(niti_yaml_set(document, "full.more=1"), NITI_ERROR_ARGUMENT, "--set full.more=1", "too many keys");
  assert_int_equal(niti_yaml_set(document, "full.k7=2"), NITI_OK);
  niti_yaml_put(document, niti_yaml_root(document), "x", NULL);
  niti_yaml_append(document, niti_yaml_get(niti_yaml_root(document), "list"), NULL);
  niti_yaml_close(document);
}

static NitiStatus write_as(const char *path, const NitiSafetensors *content) {
  NitiFile *file;
  NITI_TRY(niti_file_open(&file, path));
  const NitiStatus status = niti_safetensors_write(file, content);
  niti_file_discard(file);
  return status;
}

static void containers_that_cannot_be_written(void **state) {
  (void)state;
  static int8_t data[4];
  char *dir = make_temp(), *large = malloc(17 << 20);
  const char *path = path_of("%s/c.safetensors", dir);
  NitiSafetensor two[2] = {{.name = (char[]){"b"}, .ndim = 1, .dims = {2}, .data = data},
                           {.name = (char[]){"a"}, .ndim = 1, .dims = {0}, .data = data}};
  NitiPair pairs[2] = {{(char[]){"k"}, (char[]){"v"}}, {(char[]){"l"}, (char[]){"w"}}};
  const NitiSafetensors content = {.tensors = two, .count = 2, .metadata = pairs, .metadata_count = 2};
  assert_int_equal(write_as(path, &content), NITI_OK);
  two[0].ndim = NITI_DIMS_MAX + 1;
  refused(write_as(path, &content), NITI_ERROR_FORMAT, "'b'", "9 dimensions");
  two[0].ndim = -1;
  refused(write_as(path, &content), NITI_ERROR_FORMAT, "'b'", "-1 dimensions");
  two[0].ndim = 1;
  char *const names[] = {(char[]){""}, (char[]){"__metadata__"}, (char[]){"\xff"}, (char[]){"a"}};
  for (int i = 0; i < 4; ++i) {
    two[0].name = names[i];
    assert_int_equal(write_as(path, &content), NITI_ERROR_ARGUMENT);
  }
  two[0].name = (char[]){"b"};
  pairs[1].value = (char[]){"\xc3"};
  refused(write_as(path, &content), NITI_ERROR_ARGUMENT, "'l'", "not UTF-8");
  pairs[1] = (NitiPair){(char[]){"k"}, (char[]){"w"}};
  refused(write_as(path, &content), NITI_ERROR_ARGUMENT, "'k'", "twice");
  pairs[1].key = NULL;
  refused(write_as(path, &content), NITI_ERROR_ARGUMENT, "''", "missing");
  assert_non_null(large);
  memset(large, 'x', (17 << 20) - 1);
  large[(17 << 20) - 1] = 0;
  pairs[1] = (NitiPair){(char[]){"l"}, large};
  refused(write_as(path, &content), NITI_ERROR_ARGUMENT, "a header of", "at most 16777216");
  pairs[1].value = (char[]){"w"};
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlim_t before = limit.rlim_cur;
  (void)signal(SIGXFSZ, SIG_IGN);
  for (limit.rlim_cur = 0; limit.rlim_cur < 100; limit.rlim_cur += 3) {
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(write_as(path, &content), NITI_ERROR_FILE);
  }
  limit.rlim_cur = before;
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
  free(large);
  remove_temp(dir);
}

static void reads_that_fail(void **state) {
  (void)state;
  if (!FAILS) skip();
  char *dir = make_temp();
  const char *path = path_of("%s/c.safetensors", dir);
  NitiCheckpoint *c;
  assert_int_equal(save_last(dir), NITI_OK);
  assert_int_equal(rename(path_of("%s/last.safetensors", dir), path), 0);
  interruptions = 3;
  assert_int_equal(load_checkpoint(path), NITI_OK);
  pread_error = EIO;
  refused(niti_checkpoint_load(&c, path), NITI_ERROR_FILE, path, strerror(EIO));
  pread_error = -1;
  refused(niti_checkpoint_load(&c, path), NITI_ERROR_FORMAT, path, "ends at byte 0");
  pread_error = 0;
  remove_temp(dir);
}

static void types_of_arrays(void **state) {
  (void)state;
  static const char *const types[] = {"|O", "O", "<f4", "<c8", "|b2", "<u3", "", "<", "|S5", "<i22", "*i2", ">i2", "=i16", "<M8"};
  char *dir = make_temp(), file[128] = "\x93NUMPY\1";
  NitiArray array;
  for (size_t i = 0; i < sizeof types / sizeof *types; ++i) {
    file[8] = (char)snprintf(file + 10, sizeof file - 10, "{'descr':'%s','fortran_order':False,'shape':(1,),}", types[i]);
    put_file(path_of("%s/a.npy", dir), file, 10 + (size_t)file[8]);
    assert_int_equal(niti_npy_read(&array, path_of("%s/a.npy", dir)), NITI_ERROR_FORMAT);
    niti_array_close(&array);
  }
  remove_temp(dir);
}

static void idx_that_is_damaged(void **state) {
  (void)state;
  char *dir = make_temp();
  const uint32_t dims[3] = {6, 4, 4}, wide[3] = {6, 4, 5};
  size_t size = 0;
  NitiDataset *set;
  const NitiDataRequest training = {.need = NITI_SPLIT_BIT(NITI_TRAIN)};
  put_idx(path_of("%s/train-labels-idx1-ubyte", dir), 1, dims, low, false);
  put_idx(path_of("%s/train-images-idx3-ubyte.gz", dir), 3, dims, low, true);
  uint8_t *bytes = get_file(path_of("%s/train-images-idx3-ubyte.gz", dir), &size);
  for (size_t n = 0; n < size; ++n) {
    put_file(path_of("%s/train-images-idx3-ubyte.gz", dir), bytes, n);
    assert_int_equal(niti_dataset_open(&set, dir, NULL, &training), NITI_ERROR_FORMAT);
  }
  for (size_t n = size - 8; n < size; ++n) { /* its checksum and length */
    bytes[n] ^= 1;
    put_file(path_of("%s/train-images-idx3-ubyte.gz", dir), bytes, size);
    refused(niti_dataset_open(&set, dir, NULL, &training), NITI_ERROR_FORMAT, "train-images", "damaged gzip");
    bytes[n] ^= 1;
  }
  free(bytes);
  put_idx(path_of("%s/train-images-idx3-ubyte.gz", dir), 3, dims, low, true);
  put_idx(path_of("%s/t10k-labels-idx1-ubyte", dir), 1, dims, low, false);
  put_idx(path_of("%s/t10k-images-idx3-ubyte", dir), 3, wide, low, false);
  refused(niti_dataset_open(&set, dir, NULL, NULL), NITI_ERROR_FORMAT, "images of 4x5", "4x4");
  remove_temp(dir);
}

/* A header asks for no more memory than the file can fill, and no chunk for more than the file has. */
static void images_that_promise_too_much(void **state) {
  (void)state;
  static const uint8_t grey[64];
  char *dir = make_temp();
  uint8_t pixels[4 * 4 * 3];
  size_t size = 0;
  char *png = strdup(path_of("%s/a.png", dir)), *jpeg = strdup(path_of("%s/a.jpg", dir));
  assert_true(png && jpeg);
  put_png(png, 8, 8, 1, grey);
  put_jpeg(jpeg, 8, 8, 1, grey);
  uint8_t *bytes = get_file(png, &size);
  put_u32(bytes + 16, 8192);
  put_u32(bytes + 20, 8192);
  put_u32(bytes + 29, (uint32_t)crc32(0, bytes + 12, 17));
  put_file(png, bytes, size);
  refused(niti_image_read(png, NULL, (NitiShape){1, 4, 4, 3}, pixels), NITI_ERROR_FORMAT, png, "promises 8192x8192 pixels");
  put_u32(bytes + 33, 0x41000000); /* the next chunk's length */
  put_file(png, bytes, size);
  refused(niti_image_read(png, NULL, (NitiShape){1, 4, 4, 3}, pixels), NITI_ERROR_FORMAT, png, "ends too early");
  free(bytes);
  bytes = get_file(jpeg, &size);
  size_t at = 0;
  while (at + 9 < size && !(bytes[at] == 0xff && bytes[at + 1] == 0xc0)) ++at;
  assert_true(at + 9 < size);
  memcpy(bytes + at + 5, "\x20\0\x20\0", 4);
  put_file(jpeg, bytes, size);
  refused(niti_image_read(jpeg, NULL, (NitiShape){1, 4, 4, 3}, pixels), NITI_ERROR_FORMAT, jpeg, "promises 8192x8192 pixels");
  free(bytes);
  free(png);
  free(jpeg);
  remove_temp(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(texts_without_memory),
      cmocka_unit_test(checkpoints_without_memory),
      cmocka_unit_test(weights_of_other_tools),
      cmocka_unit_test(data_sets_without_memory),
      cmocka_unit_test(bytes_in_the_order_of_files),
      cmocka_unit_test(values_of_the_wrong_kind),
      cmocka_unit_test(checkpoints_by_hand),
      cmocka_unit_test(cifar_that_changes),
      cmocka_unit_test(files_that_fail),
      cmocka_unit_test(edits_that_are_refused),
      cmocka_unit_test(containers_that_cannot_be_written),
      cmocka_unit_test(reads_that_fail),
      cmocka_unit_test(types_of_arrays),
      cmocka_unit_test(idx_that_is_damaged),
      cmocka_unit_test(images_that_promise_too_much),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
