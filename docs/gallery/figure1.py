from jaxtv.vision.figures import figure1

figure1().savefig("figure1.webp", dpi=80)
