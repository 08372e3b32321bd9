/* Winograd by AVX2: vpmaddwd sums pairs of int16 products; the tile is the direct convolution's. */
#include "backend/cpu/winograd.h"
#include "backend/cpu/winograd_vector.h"
#include "backend/cpu/x86/conv_avx2.h"

static uint64_t transform_input(int16_t *v, size_t stride, const int8_t *const *in, size_t channels) {
  return niti_winograd_input_tile(v, stride, in, channels);
}

static void transform_weights(int16_t *u, size_t stride, const int16_t *w, size_t tap_stride, size_t groups, int columns,
                              int32_t *magnitudes, int32_t *squares) {
  niti_winograd_weights_panel(u, stride, w, tap_stride, groups, columns, magnitudes, squares);
}

static void transform_output(int32_t *acc, size_t acc_stride, const int32_t *m, size_t stride, int columns, bool add) {
  if (add)
    niti_winograd_output_tile(acc, acc_stride, m, stride, columns, true);
  else
    niti_winograd_output_tile(acc, acc_stride, m, stride, columns, false);
}

/* Worth: both drivers timed in turn on one core of an Ice Lake server, least of 7 runs, 16 to 512 channels, images of 2x2 to
 * 32x32, batches of 1 to 64. 16 -> 16 gains 1.2, 32 -> 32 1.4 and more, 64 and more channels 2 to 4; 512 -> 512 gains 1.4 at 16
 * tiles and loses at 4; 6x6 images (56 % of their tiles) gain 2.5, 5x5 images (39 %) gain or lose, 2x2 images (25 %) lose. */
const NitiWinogradKernels niti_winograd_kernels_avx2 = {
    .name = "avx2 winograd 4x4",
    .worth = {.channels = 16, .tiles = 16, .percent = 50},
    .channels = NITI_VECTOR_SHORTS,
    .lanes = NITI_VECTOR_INTS,
    .vectors = 2,
    .rows = {0, 6, 6},
    .tile = niti_tile_16_avx2,
    .panel_across = niti_panel_across_16x2_avx2,
    .panel_along = niti_panel_along_16x2_avx2,
    .requantise = niti_requantise_tile_avx2,
    .input = transform_input,
    .weights = transform_weights,
    .output = transform_output,
};
