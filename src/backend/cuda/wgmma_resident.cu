/* Convolution whose weights for 128 output channels stay in shared memory, so that only boxes pass. The two pairs take turns at
 * the tensor cores, tile by tile, and their boxes come in that order through one ring. */
#include "backend/cuda/wgmma_conv.cuh"

template <NitiFinish FINISH, int TAPS, int COLUMNS, bool ZEROS = false>
__global__ void __launch_bounds__(THREADS, 1)
    resident(const __grid_constant__ CUtensorMap map, const __grid_constant__ ConvTiling t, const __grid_constant__ NitiOutput d,
             const int8_t *__restrict__ packed, const __grid_constant__ NitiRequantiseArgs rq, bool second) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ uint8_t raw[];
  const uint32_t barriers = niti_shared_address(raw);
  const uint32_t boxes = (barriers + BARRIER_BYTES + SHARED_ALIGN - 1) / SHARED_ALIGN * SHARED_ALIGN;
  const uint32_t weights = boxes + t.boxes * t.box_stride;
  const uint32_t box_full = barriers, box_free = box_full + 8 * BOXES_MAX, weight_full = box_free + 8 * BOXES_MAX,
                 turn = weight_full + 8 * STAGES_MAX;
  constexpr uint32_t stage_bytes = TAPS * TILE_BYTES, part_bytes = stage_bytes / CLUSTER;
  ConvShared *shared = (ConvShared *)(raw + SHARED);
  const int warp = niti_uniform((int)threadIdx.x >> 5);
  const uint32_t rank = niti_cluster_rank();

  ConvRange range = {};
  ConvWork work = conv_work(t, rank);
  const ConvPhase &phase = t.phase[work.phase];
  const int columns = phase.kw, steps = phase.kh * columns / TAPS; /* stages of a chunk */
  if (second) {
    niti_kernel_begin();
    range.shift = niti_clipped_shift(rq.range->max, rq.clip);
    work.tiles = conv_tiles_again(t, rq, range.shift, work.tiles);
    if (work.tiles == 0) { /* nothing here, nor for the other block of the cluster */
      __syncthreads();     /* the block has read the range for the last time */
      if (threadIdx.x == 0) conv_range_end(rq, false);
      return;
    }
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < t.boxes; ++i) niti_barrier_init(box_full + 8 * i, 1), niti_barrier_init(box_free + 8 * i, PAIR_WARPS);
    for (int i = 0; i < t.stages; ++i) niti_barrier_init(weight_full + 8 * i, 1);
    for (int i = 0; i < PAIRS; ++i) niti_barrier_init(turn + 8 * i, PAIR_WARPS);
    for (int i = 0; i < PAIRS; ++i) shared->meeting[i] = ConvMeeting{0, 0};
    shared->tiles = work.tiles;
    niti_barrier_publish();
  }
  __syncthreads();
  niti_cluster_sync();
  niti_kernel_begin();
  if (!second) range.shift = niti_range_predicted(rq);

  if (threadIdx.x >= CONSUMERS) {
    niti_registers_lower<COPY_REGISTERS>();
    if (threadIdx.x == CONSUMERS) {
      const int stages = t.chunks * steps;
      const int8_t *from = packed + phase.packed + (size_t)(work.k0 / BN) * stages * stage_bytes + rank * part_bytes;
      for (int i = 0; i < stages; ++i, from += stage_bytes) {
        niti_barrier_expect(weight_full + 8 * i, stage_bytes);
        niti_copy_run_to(weights + i * stage_bytes + rank * part_bytes, from, part_bytes, weight_full + 8 * i,
                         (1 << CLUSTER) - 1);
      }
      Ring ring = {0, 0};
      for (int i = 0; i < work.tiles; ++i) {
        for (int pair = 0; pair < t.pairs; ++pair) {
          const TilePlace p = place_of(t, (work.begin + i * work.step) * t.pairs + pair);
          for (int chunk = 0; chunk < t.chunks; ++chunk, ring.next(t.boxes)) {
            niti_barrier_wait(box_free + 8 * ring.stage, ring.parity ^ 1);
            niti_barrier_expect(box_full + 8 * ring.stage, t.box_bytes);
            niti_copy_box(boxes + ring.stage * t.box_stride, &map, box_full + 8 * ring.stage, chunk * CHUNK, p.n,
                          p.w - phase.pad_w, p.h - phase.pad_h);
          }
        }
      }
    }
  } else if (warp < t.pairs * PAIR_WARPS) {
    niti_registers_raise<REGISTERS>();
    conv_bias_fetch<COLUMNS>(shared, t, rq, work, d.k);
    const int pair = warp / PAIR_WARPS, block = warp / 4 % BLOCKS;
    const bool leader = (threadIdx.x & 31) == 0;
    const uint32_t block_stride = (uint32_t)(t.across ? 64 : t.box_w * t.box_n) * CHUNK;
    const uint32_t box_descriptor = niti_descriptor(boxes + block * block_stride, 16);
    const uint32_t weight_descriptor = niti_descriptor(weights, 16);
    const uint32_t cell = (uint32_t)(t.box_n * CHUNK) >> 4,
                   row_gap = (uint32_t)(t.box_w - columns) * cell; /* between taps, rows */
    Ring box = {0, 0};
    box.skip(pair * t.chunks, t.boxes);
    for (int i = 0; i < shared->tiles; ++i) {
      int acc[COLUMNS / 2];
      bool add = false;
      uint32_t last_box = 0;
      const TilePlace p = place_of(t, (work.begin + i * work.step) * t.pairs + pair);
      if (ZEROS && !second) conv_zeros<COLUMNS / 2>(t, d, p, work, warp);
      if (t.pairs > 1)
        niti_barrier_wait(turn + 8 * pair, (uint32_t)(i & 1) ^ (pair == 0 ? 1 : 0)); /* the first's first is free */
      uint32_t b = weight_descriptor;
      for (int chunk = 0, stage = 0; chunk < t.chunks; ++chunk, box.next(t.boxes)) {
        niti_barrier_wait(box_full + 8 * box.stage, box.parity);
        uint32_t a = box_descriptor + (box.stage * t.box_stride >> 4);
        for (int step = 0, column = 0; step < steps; ++step, ++stage, b += stage_bytes >> 4) {
          if (i == 0) niti_barrier_wait(weight_full + 8 * stage, 0);
          niti_wgmma_fence();
#pragma unroll
          for (int tap = 0; tap < TAPS; ++tap) {
#pragma unroll
            for (int s = 0; s < CHUNK / 32; ++s) {
              niti_wgmma<CONV_LAYOUT>(acc, a + tap * cell + 2 * s, b + (tap * TILE_BYTES >> 4) + 2 * s, add);
              add = true;
            }
          }
          niti_wgmma_commit();
          if (chunk == t.chunks - 1 && step == 0) conv_range_ask(range, rq);
          if (step == 0 && chunk > 0) { /* the products before these are done: their box may be overwritten */
            niti_wgmma_wait<1>();
            if (leader) niti_barrier_arrive(box_free + 8 * last_box);
          }
          column += TAPS;
          a += TAPS * cell;
          if (column == columns) column = 0, a += row_gap;
        }
        last_box = box.stage;
      }
      if (leader && t.pairs > 1) niti_barrier_arrive(turn + 8 * (pair ^ 1));
      const NitiSpot spot = conv_spot(t, d, p, work, warp);
      uint2 mask = make_uint2(0, 0);
      if (niti_finish_masks<FINISH>(d)) mask = niti_mask_load(d, spot);
      niti_wgmma_wait<0>();
      if (leader) niti_barrier_arrive(box_free + 8 * last_box);
      box.skip((t.pairs - 1) * t.chunks, t.boxes);
      conv_finish<FINISH>(acc, t, d, rq, range, spot, mask, i, second, shared);
    }
    if (!second && !t.once) conv_range_leave(range, rq);
  }
  __syncwarp();
  niti_cluster_sync(); /* no block may go while the other still copies into it */
  if (second && threadIdx.x == 0) conv_range_end(rq, true);
#endif
}

void niti_wgmma_conv_resident(NitiCuda *cuda, const ConvLaunch &l, unsigned blocks) {
  static const ConvKernel wide[][2] = CONV_VARIANTS(CONV_TAPS, resident, BN),
                          narrow[][2] = CONV_VARIANTS(CONV_TAPS, resident, BN / 2),
                          wide_zeros[][2] = CONV_VARIANTS(CONV_ZEROS, resident, BN),
                          narrow_zeros[][2] = CONV_VARIANTS(CONV_ZEROS, resident, BN / 2);
  const bool is_wide = l.tiling.k > BN / 2;
  if (l.tiling.zeros)
    niti_wgmma_conv_launch(cuda, is_wide ? wide_zeros : narrow_zeros, l, blocks);
  else
    niti_wgmma_conv_launch(cuda, is_wide ? wide : narrow, l, blocks);
}
