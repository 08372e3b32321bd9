/* Draws a confusion matrix, and a page of misclassified images. */
#include <stdio.h>
#include <string.h>

#include "train/confusion.h"

enum { WHITE = 0xffffff, BLACK = 0x000000, GREY = 0xdddddd, GREEN = 0x107c10, RED = 0xc02020 };
enum { LETTER_W = NITI_LETTER_WIDTH, LETTER_H = NITI_LETTER_HEIGHT };

/* ---- the matrix ---- */

typedef struct Grid {
  int32_t cell, left, top; /* pixels */
  bool counts, names;
} Grid;

static const char legend[] = "ROWS: TRUE, COLUMNS: PREDICTED";

static int32_t longest_name(const NitiConfusion *c) {
  int32_t most = 0;
  for (int32_t i = 0; i < c->classes; ++i) {
    const int32_t length = (int32_t)strlen(c->names[i]);
    if (length > most) most = length;
  }
  return most;
}

static Grid make_grid(const NitiConfusion *c) {
  const int32_t letters = longest_name(c) + 6, classes = c->classes, least = (int32_t)sizeof legend + 1;
  if (classes <= 12) return (Grid){52, LETTER_W * (2 * letters > least ? 2 * letters : least), 52, true, true};
  if (classes <= 40) return (Grid){26, LETTER_W * (letters > least ? letters : least), 26, true, true};
  if (classes <= 128) return (Grid){8, LETTER_W * letters, 8, false, true};
  return (Grid){classes <= 512 ? 3 : 1, 4, 4, false, false};
}

/* From white for 0 to blue or red for all of a row: `part` of `whole` takes that much from the other two channels. */
static uint32_t shade(int64_t part, int64_t whole, bool right) {
  const uint32_t rest = whole > 0 ? (uint32_t)(224 - 224 * part / whole) : 224, faint = part > 0 && rest > 208 ? 208 : rest;
  const uint32_t other = faint + 31;
  return right ? other << 16 | other << 8 | 255 : 255u << 16 | other << 8 | other;
}

static void draw_cell(NitiPicture *p, const Grid *g, int32_t row, int32_t column, int64_t count, int64_t whole) {
  const int32_t x = g->left + column * g->cell, y = g->top + row * g->cell, scale = g->cell / LETTER_H / 4;
  const int32_t line = g->cell > 3;
  niti_picture_fill(p, x, y, g->cell - line, g->cell - line, shade(count, whole, row == column));
  if (!g->counts || count == 0) return;
  char text[24];
  const int32_t length = snprintf(text, sizeof text, "%lld", (long long)count);
  const int32_t width = length * LETTER_W * scale;
  const uint32_t colour = 2 * count > whole ? WHITE : BLACK;
  niti_picture_text(p, x + (g->cell - width) / 2, y + (g->cell - LETTER_H * scale) / 2, scale, colour, text, length);
}

static void draw_row(NitiPicture *p, const Grid *g, const NitiConfusion *c, int32_t row) {
  const int64_t *counts = c->counts + (size_t)row * (size_t)c->classes;
  const int32_t scale = g->cell >= 52 ? 2 : 1, middle = (g->cell - LETTER_H * scale) / 2;
  int64_t whole = 0;
  for (int32_t k = 0; k < c->classes; ++k) whole += counts[k];
  for (int32_t k = 0; k < c->classes; ++k) draw_cell(p, g, row, k, counts[k], whole);
  if (!g->names) return;
  char text[NITI_CONFUSION_NAME_MAX + 16], number[16];
  (void)snprintf(number, sizeof number, "%d", row);
  (void)snprintf(text, sizeof text, strcmp(number, c->names[row]) == 0 ? "%s" : "%s %s", number, c->names[row]);
  niti_picture_text(p, LETTER_W * scale, g->top + row * g->cell + middle, scale, BLACK, text, g->left / LETTER_W / scale - 1);
  if (g->counts)
    niti_picture_text(p, g->left + row * g->cell + (g->cell - (int32_t)strlen(number) * LETTER_W * scale) / 2, middle, scale,
                      BLACK, number, 8);
}

NitiStatus niti_confusion_picture(NitiPicture *out, const NitiConfusion *c) {
  const Grid g = make_grid(c);
  const int32_t side = c->classes * g.cell;
  NITI_TRY(niti_picture_open(out, g.left + side + 4, g.top + side + 4, WHITE));
  if (g.cell > 3) niti_picture_fill(out, g.left, g.top, side, side, GREY);
  for (int32_t row = 0; row < c->classes; ++row) draw_row(out, &g, c, row);
  if (g.counts) niti_picture_text(out, LETTER_W, LETTER_H, 1, BLACK, legend, g.left / LETTER_W);
  return NITI_OK;
}

/* ---- the page ---- */

enum { TILE_MIN = 96, TILE_GAP = 8, TILES_PER_ROW = 6, CAPTION_SCALE = 2 };

NitiStatus niti_confusion_page(NitiPicture *out, const NitiConfusion *c) {
  const int32_t larger = c->image.h > c->image.w ? c->image.h : c->image.w, scale = larger < TILE_MIN ? TILE_MIN / larger : 1;
  const int32_t image_w = c->image.w * scale, image_h = c->image.h * scale, wide = image_w > TILE_MIN ? image_w : TILE_MIN;
  const int32_t tile_w = wide + TILE_GAP, line = LETTER_H * CAPTION_SCALE, tile_h = image_h + 2 * line + TILE_GAP;
  const int32_t columns = c->wrong_count < TILES_PER_ROW ? c->wrong_count : TILES_PER_ROW;
  const int32_t most = wide / (LETTER_W * CAPTION_SCALE);
  *out = (NitiPicture){0};
  if (c->wrong_count == 0) return NITI_OK;
  const int32_t rows = (c->wrong_count + columns - 1) / columns;
  NITI_TRY(niti_picture_open(out, columns * tile_w + TILE_GAP, rows * tile_h + TILE_GAP, WHITE));
  for (int32_t i = 0; i < c->wrong_count; ++i) {
    const NitiWrong *w = &c->wrong[i];
    const int32_t x = TILE_GAP + i % columns * tile_w, y = TILE_GAP + i / columns * tile_h, below = y + image_h + CAPTION_SCALE;
    niti_picture_image(out, x, y, scale, w->pixels, c->image.h, c->image.w, c->image.c);
    niti_picture_text(out, x, below, CAPTION_SCALE, GREEN, c->names[w->label], most);
    niti_picture_text(out, x, below + line, CAPTION_SCALE, RED, c->names[w->predicted], most);
  }
  return NITI_OK;
}
