// A multiply-accumulate with niti's requantisation to int8, rounding `nearest` (docs/arithmetic.md): the sum of a * b while `enable` is 1, and its value
// / 2^shift, ties away from zero, clipped to [-127, 127]. `clear` starts a new sum. One product per clock; int32 holds 133,144 of them exactly.
module multiply_accumulate (
    input wire clock,
    input wire clear,
    input wire enable,
    input wire signed [7:0] a,
    input wire signed [7:0] b,
    output reg signed [31:0] sum
);
  wire signed [15:0] product = a * b;
  always @(posedge clock) begin
    if (clear) sum <= 0;
    else if (enable) sum <= sum + {{16{product[15]}}, product};
  end
endmodule

module requantise (
    input wire signed [31:0] sum,
    input wire [4:0] shift,
    output wire signed [7:0] result
);
  wire [31:0] magnitude = sum[31] ? -sum : sum;
  wire [32:0] half = shift == 0 ? 33'd0 : 33'd1 << (shift - 1);
  wire [32:0] rounded = ({1'b0, magnitude} + half) >> shift;
  wire [7:0] clipped = rounded > 127 ? 8'd127 : rounded[7:0];
  assign result = sum[31] ? -clipped : clipped;
endmodule
