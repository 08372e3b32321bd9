/* Writes the interface of an exported network. */
#include <inttypes.h>

#include "export/source.h"

bool niti_export_trains(const NitiExport *e) { return e->training.program != NULL; }

int32_t niti_export_exponents(const NitiExport *e) {
  const int32_t a = niti_export_trains(e) ? e->training.program->tensor_count : 0, b = e->inference.program->tensor_count;
  return a > b ? a : b;
}

int32_t niti_export_hints(const NitiExport *e) {
  const int32_t count = e->inference.hint_count + (niti_export_trains(e) ? e->training.hint_count : 0);
  return count > 0 ? count : 1;
}

static void write_constants(FILE *to, const NitiExport *e) {
  const NitiDescription *m = e->recipe->model;
  const NitiExportReport *r = &e->report;
  fprintf(to, "#define %s_HEIGHT %" PRId32 " /* of the input */\n#define %s_WIDTH %" PRId32 "\n#define %s_CHANNELS %" PRId32 "\n",
          e->upper, m->input.h, e->upper, m->input.w, e->upper, m->input.c);
  fprintf(to, "#define %s_CLASSES %" PRId32 "\n#define %s_BATCH %" PRId32 " /* the most images of a training step */\n", e->upper,
          m->classes, e->upper, r->batch);
  fprintf(to, "#define %s_ARENA_BYTES %" PRId64 " /* scratch memory, aligned to 4 bytes, free between calls */\n", e->upper,
          r->arena);
  if (!niti_export_trains(e)) return;
  fprintf(to, "#define %s_WEIGHT_BYTES %" PRId64 " /* trained weights, in the context */\n", e->upper, r->trained_weights);
  fprintf(to, "#define %s_SLOT_BYTES ((%s_WEIGHT_BYTES + 31) / 32 * 32 + 64) /* of each of the two slots of saved state */\n",
          e->upper, e->upper);
  fprintf(to, "#define %s_NETWORK UINT32_C(0x%08" PRIx32 ") /* what saved states are checked against */\n", e->upper, e->network);
}

static void write_context(FILE *to, const NitiExport *e) {
  fprintf(to,
          "\n/* A network at work: %" PRId64
          " bytes, the caller's; use it through the functions alone. mu, the learning rate (0 to 30: how many\n"
          " * bits of the largest gradient count), may be set at any time. No two calls may use a context, or an arena, at once. "
          "*/\n",
          e->report.context);
  fprintf(
      to,
      "typedef struct %s {\n  uint64_t seed;\n  int8_t *arena;\n  uint32_t step; /* training steps so far */\n  int32_t mu;\n",
      e->name);
  fprintf(to, "  uint8_t hints[%" PRId32 "];\n", niti_export_hints(e));
  if (niti_export_trains(e)) fprintf(to, "  int8_t weights[%s_WEIGHT_BYTES];\n", e->upper);
  fprintf(to, "  int32_t exponents[%" PRId32 "]; /* behind the weights, of which kernels read whole words */\n",
          niti_export_exponents(e));
  fprintf(to, "} %s;\n\n", e->name);
}

static void write_inference(FILE *to, const NitiExport *e) {
  fprintf(to,
          "/* Fills `pixels` with row `row` of image `image`: %s_WIDTH * %s_CHANNELS %s. */\n"
          "typedef void (*%s_rows)(void *user, int32_t image, int32_t row, uint8_t *pixels);\n\n",
          e->upper, e->upper, e->recipe->data.type == NITI_UINT8 ? "values from 0 to 255" : "int8 values as bytes", e->name);
  fprintf(to,
          "/* Starts from the exported weights, step %" PRIu32
          " and mu %d. arena: %s_ARENA_BYTES bytes, aligned to 4; it must stay while the "
          "network is used. */\n"
          "void %s_init(%s *network, void *arena);\n",
          e->start.step, e->start.mu, e->upper, e->name, e->name);
  fprintf(to,
          "/* The class of an image, pixels[%s_HEIGHT][%s_WIDTH][%s_CHANNELS]: the first with the largest logit. logits, if not "
          "NULL, receives\n"
          " * %s_CLASSES mantissas of one exponent. */\n"
          "int32_t %s_predict(%s *network, const uint8_t *pixels, int8_t *logits);\n"
          "int32_t %s_predict_rows(%s *network, %s_rows rows, void *user, int8_t *logits);\n",
          e->upper, e->upper, e->upper, e->upper, e->name, e->name, e->name, e->name, e->name);
  fprintf(to,
          "/* The SHA-256 of the weights in hexadecimal, as `niti hash` prints it. */\n"
          "void %s_hash(const %s *network, char text[65]);\n",
          e->name, e->name);
}

static void write_training(FILE *to, const NitiExport *e) {
  fprintf(to,
          "/* One training step with n images, 1 to %s_BATCH; labels[n], each below %s_CLASSES. Returns how many of them were "
          "classified\n"
          " * correctly before it, or -1, and no step, for an n, a label or a network->mu out of range. */\n"
          "int32_t %s_train(%s *network, const uint8_t *pixels, const uint16_t *labels, int32_t n);\n"
          "/* The same; rows are asked for in ascending order, image by image, so that no memory for whole images is needed. */\n"
          "int32_t %s_train_rows(%s *network, %s_rows rows, void *user, const uint16_t *labels, int32_t n);\n\n",
          e->upper, e->upper, e->name, e->name, e->name, e->name, e->name);
  fprintf(
      to,
      "/* Reads or writes bytes [offset, offset + size) of slot 0 or 1, of %s_SLOT_BYTES each. Return 0 for success. A slot "
      "is written in\n"
      " * ascending order, each byte once: in flash, erase a page when its first byte is written. Offsets and sizes of writes "
      "are multiples\n"
      " * of 32 bytes, which suits flash that is programmed in words of 4, 8, 16 or 32; data may lie at any address. Where a "
      "read finds a word\n"
      " * damaged by a loss of power, give any bytes and return 0: the checksum covers them. */\n"
      "typedef int (*%s_read)(void *user, int slot, uint32_t offset, void *data, uint32_t size);\n"
      "typedef int (*%s_write)(void *user, int slot, uint32_t offset, const void *data, uint32_t size);\n\n",
      e->upper, e->name, e->name);
  fprintf(to,
          "/* Saves weights, step, seed and mu into the slot that does not hold the newest state. Whatever happens meanwhile, "
          "also a loss of\n"
          " * power, %s_load finds either that state or the new one. Returns 0, or -1 if a callback failed. */\n"
          "int %s_save(const %s *network, %s_read read, %s_write write, void *user);\n"
          "/* Takes up the newest whole state. Returns 0; or -1 if there is none, and the network stays as it was (if reading "
          "failed in between,\n"
          " * call %s_init). */\n"
          "int %s_load(%s *network, %s_read read, void *user);\n",
          e->name, e->name, e->name, e->name, e->name, e->name, e->name, e->name, e->name);
}

void niti_export_write_header(FILE *to, const NitiExport *e) {
  const NitiExportReport *r = &e->report;
  fprintf(to, "/* %s: a network of integers, exported by niti %s, arithmetic %s.\n *\n", e->name, niti_version(),
          NITI_ARITHMETIC);
  fprintf(to, " * RAM: %" PRId64 " bytes: context %" PRId64 ", arena %" PRId64 ", stack at most %" PRId64 " (from -O1 on).\n",
          r->ram, r->context, r->arena, r->stack);
  fprintf(to,
          " * Besides, the pixels of images that are in memory: %" PRId64 " bytes each; none with functions that ask for rows.\n",
          r->image);
  fprintf(to, " * Flash: %" PRId64 " bytes of weights, besides code.\n", r->trained_weights + r->frozen_weights);
  fprintf(to, " * Multiply-adds per image: %" PRId64 " to predict", r->multiply_adds);
  if (niti_export_trains(e)) fprintf(to, ", at most %" PRId64 " to train", r->training_multiply_adds);
  fprintf(
      to,
      ".\n *\n * Freestanding C99: no library but memcpy, no allocation, no global state. Where constants belong in a section of "
      "their own, define\n"
      " * %s_CONST, such as __attribute__((section(\".flash\"))), when compiling %s.c; place context and arena as you like. */\n",
      e->upper, e->name);
  fprintf(to, "#ifndef %s_H\n#define %s_H\n\n#include <stdint.h>\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n", e->upper,
          e->upper);
  write_constants(to, e);
  write_context(to, e);
  write_inference(to, e);
  if (niti_export_trains(e)) write_training(to, e);
  fprintf(to, "\n#ifdef __cplusplus\n}\n#endif\n#endif\n");
}
