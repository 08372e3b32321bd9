/* Writes how an exported network reads pixels. */
#include <inttypes.h>
#include <string.h>

#include "export/source.h"

/* ---- pixels as mantissas: on a line, where one is found, or by a table ---- */

enum { SHIFT = 20, HALF = 128 };

/* Mantissas + HALF are (v * factor + offset) >> SHIFT, without overflow in 32 bits. */
typedef struct Line {
  int32_t factor, offset;
} Line;

static bool find_offset(Line *line, const int8_t *table, int64_t factor) {
  const int64_t one = (int64_t)1 << SHIFT;
  int64_t least = 0, most = INT32_MAX - 255 * factor;
  for (int32_t v = 0; v < 256; ++v) {
    const int64_t low = (table[v] + HALF) * one - v * factor;
    if (low > least) least = low;
    if (low + one - 1 < most) most = low + one - 1;
  }
  *line = (Line){(int32_t)factor, (int32_t)(least + (most - least) / 2)};
  return least <= most;
}

static bool find_line(Line *line, const int8_t *table) {
  const int64_t one = (int64_t)1 << SHIFT, span = table[255] - table[0];
  for (int64_t f = span > 0 ? (span - 1) * one / 255 : 0; f <= (span + 1) * one / 255; ++f) {
    if (find_offset(line, table, f)) return true;
  }
  return false;
}

/* As many channels as are told apart. */
static int32_t tables_of(const NitiExport *e) {
  const int32_t channels = e->recipe->model->input.c;
  for (int32_t c = 1; c < channels; ++c) {
    if (memcmp(e->table, e->table + (size_t)256 * (size_t)c, 256) != 0) return channels;
  }
  return 1;
}

static void write_lines(FILE *to, const Line *lines, int32_t channels) {
  fprintf(to, "RT_CONST static const uint32_t input_line[%" PRId32 "][2] = {", channels);
  for (int32_t c = 0; c < channels; ++c)
    fprintf(to, "%s{%" PRId32 "u, %" PRId32 "u}", c > 0 ? ", " : "", lines[c].factor, lines[c].offset);
  fprintf(to,
          "};\n\nstatic int8_t mantissa(uint8_t v, int32_t c) {\n"
          "  return (int8_t)((int32_t)((v * input_line[c][0] + input_line[c][1]) >> %d) - %d);\n}\n\n",
          SHIFT, HALF);
}

static void write_table(FILE *to, const NitiExport *e, int32_t channels) {
  fprintf(to, "RT_CONST static const int8_t input_table[%" PRId32 "][256] = {\n", channels);
  for (int32_t c = 0; c < channels; ++c) {
    fprintf(to, "{");
    niti_export_write_bytes(to, e->table + 256 * c, 256);
    fprintf(to, "},\n");
  }
  fprintf(to, "};\n\nstatic int8_t mantissa(uint8_t v, int32_t c) { return input_table[c][v]; }\n\n");
}

void niti_export_write_mantissas(FILE *to, const NitiExport *e) {
  Line lines[NITI_CHANNELS_MAX];
  const int32_t channels = tables_of(e);
  bool found = true;
  for (int32_t c = 0; c < channels; ++c) found = found && find_line(&lines[c], e->table + 256 * c);
  fprintf(to, "/* A value of channel c as a mantissa, at exponent %" PRId32 ". */\n", e->table_exponent);
  if (found)
    write_lines(to, lines, channels);
  else
    write_table(to, e, channels);
}

/* ---- images ---- */

void niti_export_write_input(FILE *to, const NitiExport *e) {
  const int32_t tables = tables_of(e);
  fprintf(to,
          "/* Rows of pixels become mantissas where the network reads them. */\n"
          "static void read_images(int8_t *x, %s_rows rows, void *user, int32_t n) {\n"
          "  const int32_t steps = %s_WIDTH * %s_CHANNELS / %" PRId32
          ";\n"
          "  int32_t image, row, i, c;\n"
          "  for (image = 0; image < n; ++image) {\n"
          "    for (row = 0; row < %s_HEIGHT; ++row) {\n"
          "      rows(user, image, row, (uint8_t *)x);\n"
          "      for (i = 0; i < steps; ++i) {\n"
          "        for (c = 0; c < %" PRId32
          "; ++c, ++x) *x = mantissa((uint8_t)*x, c);\n"
          "      }\n"
          "    }\n"
          "  }\n"
          "}\n\n",
          e->name, e->upper, e->upper, tables, e->upper, tables);
  fprintf(to,
          "/* Rows of images in memory: user points to the pointer to their pixels. */\n"
          "static void copy_row(void *user, int32_t image, int32_t row, uint8_t *pixels) {\n"
          "  const int32_t length = %s_WIDTH * %s_CHANNELS;\n"
          "  const uint8_t *all = *(const uint8_t *const *)user;\n"
          "  memcpy(pixels, all + (image * %s_HEIGHT + row) * length, (size_t)length);\n"
          "}\n\n"
          "static int32_t first_largest(const int8_t *logits) {\n"
          "  int32_t best = 0, j;\n"
          "  for (j = 1; j < %s_CLASSES; ++j) {\n"
          "    if (logits[j] > logits[best]) best = j;\n"
          "  }\n"
          "  return best;\n"
          "}\n\n",
          e->upper, e->upper, e->upper, e->upper);
}
